//! Numbers and foreign strings as a reader sees them.

use std::fmt::Write as _;

/// A foreign string with nothing hidden in it: control characters, directional marks, and characters that have no
/// width are shown by name or number, and it ends after `most` characters. What is left needs escaping, no more.
pub(crate) fn visible(text: &str, most: usize) -> String {
    let mut out = String::with_capacity(text.len());
    for (i, c) in text.chars().enumerate() {
        if i == most {
            out.push('…');
            break;
        }
        match c {
            '\n' => out.push('↵'),
            '\t' => out.push('⇥'),
            '\r' => out.push('␍'),
            // The block "Control Pictures" follows the order of the first 32 characters.
            '\0'..='\x1f' => out.push(char::from_u32(0x2400 + c as u32).unwrap_or('\u{fffd}')),
            '\x7f' => out.push('␡'),
            c if c.is_control() || is_unseen(c) => {
                // Writing to a String does not fail.
                let _ = write!(out, "[U+{:04X}]", c as u32);
            }
            c => out.push(c),
        }
    }
    out
}

/// Characters that change how others are laid out, or that have no shape: joiners, marks and overrides of direction,
/// separators of lines, the byte-order mark, tags, non-characters (which XML refuses).
pub fn is_unseen(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{fffe}' | '\u{ffff}'
        | '\u{e0000}'..='\u{e007f}')
}

/// `1,234,567`.
pub(crate) fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Three significant digits, thousands kept whole: `12,345`, `123`, `1.23`, `0.0123`, `1.2e-5`.
pub(crate) fn significant(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() {
        return "–".into();
    }
    if size == 0.0 {
        return "0".into();
    }
    if size >= 999.5 {
        let sign = if value < 0.0 { "−" } else { "" };
        return format!("{sign}{}", thousands(size.round() as u64));
    }
    let text = match size {
        99.95.. => format!("{value:.0}"),
        9.995.. => format!("{value:.1}"),
        0.9995.. => format!("{value:.2}"),
        0.099_95.. => format!("{value:.3}"),
        0.001.. => format!("{value:.4}"),
        _ => format!("{value:.1e}"),
    };
    text.replace('-', "−")
}

/// `12.3 %`; never rounded up to 100, nor down to 0.
pub(crate) fn percent(part: f64) -> String {
    let tenths = (part * 1000.0).round();
    match () {
        () if part < 1.0 && tenths >= 1000.0 => "over 99.9 %".into(),
        () if part > 0.0 && tenths <= 0.0 => "under 0.1 %".into(),
        () => format!("{:.1} %", tenths / 10.0),
    }
}

/// `1 text`, `2 texts`.
pub(crate) fn counted(n: u64, noun: &str) -> String {
    format!("{} {noun}{}", thousands(n), if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_are_kept_and_thousands_are_whole() {
        let shown =
            [0.0, 1.2e-5, 0.012_345, 0.5, 0.999_9, 9.999, 64.0, 999.7, 54_984.0, -1.5].map(significant);
        assert_eq!(
            shown,
            ["0", "1.2e−5", "0.0123", "0.500", "1.00", "10.0", "64.0", "1,000", "54,984", "−1.50"]
        );
    }

    #[test]
    fn only_nothing_and_all_are_shown_as_such() {
        let shown = [0.0, 1e-9, 0.5, 0.999_99, 1.0].map(percent);
        assert_eq!(shown, ["0.0 %", "under 0.1 %", "50.0 %", "over 99.9 %", "100.0 %"]);
    }

    #[test]
    fn what_cannot_be_seen_is_named() {
        assert_eq!(visible("a\nb\u{1b}[31m\u{202e}x\0", 99), "a↵b␛[31m[U+202E]x␀");
        assert_eq!(visible("héllo 世界", 3), "hél…");
        assert_eq!(visible("abc", 3), "abc");
    }
}
