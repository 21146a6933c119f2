//! Numbers as Python prints them, so that a `quant_state` written here has the bytes that Python would write.

/// `repr(value)` of Python's float: the shortest digits that read back as `value`, in exponent form below
/// 1e-4 and from 1e16 on. `value` is finite.
pub fn python_float(value: f64) -> String {
    let scientific = format!("{value:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific };
    let Ok(exponent) = exponent.parse::<i32>() else { return scientific };
    if (-4..16).contains(&exponent) {
        let plain = format!("{value}");
        return if plain.contains('.') { plain } else { plain + ".0" };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::python_float;

    #[test]
    fn numbers_look_as_python_prints_them() {
        // Printed by CPython 3.11.
        let cases: [(f64, &str); 12] = [
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
