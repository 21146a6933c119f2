//! Colours: ramps of even steps in lightness, and colours for lines that colour-blind readers can tell apart.
//!
//! Ramps are straight lines in the polar form of Oklab (Björn Ottosson, *A perceptual color space for image
//! processing*, 2020), where equal steps look equal. Lightness alone orders them, so they survive a grey print.
//! Lines have the colours of Okabe and Ito (*Color universal design*, 2008).

use std::fmt::Write as _;

/// Steps of a ramp; odd, so that a diverging one has a middle.
pub(crate) const LEVELS: usize = 33;

/// Which ramp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ramp {
    /// From nothing to much.
    Sequential,
    /// From less than expected through as expected to more.
    Diverging,
}

impl Ramp {
    /// The letter its classes begin with.
    pub(crate) fn letter(self) -> char {
        match self {
            Self::Sequential => 'q',
            Self::Diverging => 'd',
        }
    }

    /// The colour of a level from 0 to 1, on light or on dark ground.
    fn colour(self, at: f64, dark: bool) -> String {
        let between = |from: f64, to: f64, t: f64| from + (to - from) * t;
        let (lightness, chroma, hue) = match (self, dark) {
            (Self::Sequential, false) => {
                (between(0.97, 0.33, at), between(0.02, 0.115, at.sqrt()), between(110.0, 270.0, at))
            }
            (Self::Sequential, true) => {
                (between(0.24, 0.93, at), between(0.05, 0.12, at), between(280.0, 105.0, at))
            }
            (Self::Diverging, _) => {
                let away = (2.0 * at - 1.0).abs();
                let (middle, end) = if dark { (0.36, 0.80) } else { (0.965, 0.44) };
                let hue = if at < 0.5 { 250.0 } else { 45.0 };
                (between(middle, end, away), 0.118 * away, hue)
            }
        };
        hex(oklch(lightness, chroma, hue))
    }
}

/// Linear sRGB of a colour in the polar form of Oklab; hue in degrees.
fn oklch(lightness: f64, chroma: f64, hue: f64) -> [f64; 3] {
    let (b, a) = hue.to_radians().sin_cos();
    let (a, b) = (a * chroma, b * chroma);
    let long = (lightness + 0.396_337_777_4 * a + 0.215_803_757_3 * b).powi(3);
    let medium = (lightness - 0.105_561_345_8 * a - 0.063_854_172_8 * b).powi(3);
    let short = (lightness - 0.089_484_177_5 * a - 1.291_485_548 * b).powi(3);
    [
        4.076_741_662_1 * long - 3.307_711_591_3 * medium + 0.230_969_929_2 * short,
        -1.268_438_004_6 * long + 2.609_757_401_1 * medium - 0.341_319_396_5 * short,
        -0.004_196_086_3 * long - 0.703_418_614_7 * medium + 1.707_614_701 * short,
    ]
}

/// `#rrggbb`, with the transfer curve of sRGB (IEC 61966-2-1).
fn hex(linear: [f64; 3]) -> String {
    let [r, g, b] = linear.map(|c| {
        let c = c.clamp(0.0, 1.0);
        let curved = if c <= 0.003_130_8 { 12.92 * c } else { 1.055 * c.powf(1.0 / 2.4) - 0.055 };
        (curved * 255.0).round() as u8
    });
    format!("#{r:02x}{g:02x}{b:02x}")
}

/// Rules `.q0{fill:…}` to `.d32{fill:…}`.
pub(crate) fn rules(dark: bool) -> String {
    let mut out = String::new();
    for ramp in [Ramp::Sequential, Ramp::Diverging] {
        for level in 0..LEVELS {
            let colour = ramp.colour(level as f64 / (LEVELS - 1) as f64, dark);
            // Writing to a String does not fail.
            let _ = write!(out, ".{}{level}{{fill:{colour}}}", ramp.letter());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lightness of Oklab, back from `#rrggbb`.
    fn lightness(hex: &str) -> f64 {
        let channel = |i: usize| {
            let c = f64::from(u8::from_str_radix(&hex[i..i + 2], 16).unwrap()) / 255.0;
            if c <= 0.040_45 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
        };
        let [r, g, b] = [1, 3, 5].map(channel);
        let long = (0.412_221_470_8 * r + 0.536_332_536_3 * g + 0.051_445_992_9 * b).cbrt();
        let medium = (0.211_903_498_2 * r + 0.680_699_545_1 * g + 0.107_396_956_6 * b).cbrt();
        let short = (0.088_302_461_9 * r + 0.281_718_837_6 * g + 0.629_978_700_5 * b).cbrt();
        0.210_454_255_3 * long + 0.793_617_785 * medium - 0.004_072_046_8 * short
    }

    #[test]
    fn steps_of_lightness_are_even() {
        // Rounding to 8 bits a channel moves lightness by up to 0.004; leaving the gamut would move it by more.
        for (ramp, dark) in [
            (Ramp::Sequential, false),
            (Ramp::Sequential, true),
            (Ramp::Diverging, false),
            (Ramp::Diverging, true),
        ] {
            let of = |level: usize| lightness(&ramp.colour(level as f64 / 32.0, dark));
            let step = |from: usize, to: usize| (of(to) - of(from)) / (to - from) as f64;
            let halves = if ramp == Ramp::Diverging { vec![(0, 16), (16, 32)] } else { vec![(0, 32)] };
            for (from, to) in halves {
                for level in from..to {
                    let off = of(level) - of(from) - step(from, to) * (level - from) as f64;
                    assert!(off.abs() < 0.006, "{ramp:?} dark {dark} level {level}: {off}");
                }
            }
        }
    }
}
