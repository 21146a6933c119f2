//! Numbers as Python prints them, so that a `quant_state` written here has the bytes that Python would write.

/// `repr(value)` of Python's float: the fewest digits that read back as `value`, in exponent form below 1e-4 and
/// from 1e16 on. `value` is finite.
///
/// Of two candidates that are equally near (an f32 widened to f64 often lies exactly between them) Python takes
/// the even one and Rust's shortest form the upper one, so the number of digits is taken from the shortest form
/// and the digits from the exact one, which rounds to even.
pub fn python_float(value: f64) -> String {
    let shortest = format!("{value:e}");
    let digits = shortest.bytes().take_while(|byte| *byte != b'e').filter(u8::is_ascii_digit).count();
    let even = format!("{value:.*e}", digits.saturating_sub(1));
    let scientific = if even.parse() == Ok(value) { even } else { shortest };
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific };
    let Ok(exponent) = exponent.parse::<i32>() else { return scientific };
    if !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs());
    }
    // As many places behind the point as the digits need, and at least one.
    let places = (digits as i32 - 1 - exponent).max(1) as usize;
    format!("{value:.places$}")
}

#[cfg(test)]
mod tests {
    use super::python_float;

    #[test]
    fn numbers_look_as_python_prints_them() {
        // Printed by CPython 3.11.
        let cases: [(f64, &str); 15] = [
            (f64::from(0.152_439_12f32), "0.15243911743164062"),
            (f64::from(0.000_061_035_156f32), "6.103515625e-05"),
            (123_456.789, "123456.789"),
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (0.041_5, "0.0415"),
            (0.000_1, "0.0001"),
            (0.000_05, "5e-05"),
            (1.5e-7, "1.5e-07"),
            (f64::from(0.1f32), "0.10000000149011612"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.25e22, "1.25e+22"),
            (2.5e-310, "2.5e-310"),
        ];
        for (value, expected) in cases {
            assert_eq!(python_float(value), expected);
        }
    }
}
