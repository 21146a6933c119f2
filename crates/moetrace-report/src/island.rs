//! What the script reads: one JSON text in the page, escaped, with long rows of numbers packed.

use std::fmt::Write as _;

use serde::Serialize;

/// JSON that may stand inside a `script` element: the characters that could end it, open a comment, or that scripts
/// once took for line ends occur in strings only, where their escapes mean the same.
pub(crate) fn json(value: &impl Serialize) -> Result<String, serde_json::Error> {
    let text = serde_json::to_string(value)?;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                // Writing to a String does not fail.
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

/// Steps of the logarithmic code to a doubling.
const STEPS: f64 = 2048.0;

/// A count in 16 bits: `round(2048 log2(1 + n))`, little endian. Counts below 2,900 come back exactly, others within
/// 0.02 %, up to 2^31; the script decodes them.
pub(crate) fn counts(counts: impl Iterator<Item = u64>) -> String {
    words(counts.map(|n| ((1.0 + n as f64).log2() * STEPS).round().min(65_535.0) as u16))
}

/// Numbers of 16 bits, little endian.
pub(crate) fn words(words: impl Iterator<Item = u16>) -> String {
    base64(&words.flat_map(u16::to_le_bytes).collect::<Vec<u8>>())
}

/// RFC 4648, with padding.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let of = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let group = of(0) << 16 | of(1) << 8 | of(2);
        for i in 0..4 {
            let digit = DIGITS[(group >> (18 - 6 * i) & 63) as usize];
            out.push(if i > chunk.len() { '=' } else { digit as char });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_the_rfc() {
        let of = ["", "f", "fo", "foo", "foob", "fooba", "foobar"].map(|t| base64(t.as_bytes()));
        assert_eq!(of, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"]);
    }

    #[test]
    fn small_counts_survive_their_code_and_large_ones_nearly() {
        let back = |n: u64| ((1.0 + n as f64).log2() * STEPS).round() / STEPS;
        for n in (0..2_900).chain([10_000, 1_234_567, 2_000_000_000]) {
            let decoded = (back(n).exp2() - 1.0).round();
            let most = if n < 2_900 { 0.0 } else { 2e-4 * n as f64 };
            assert!((decoded - n as f64).abs() <= most, "{n} came back as {decoded}");
        }
    }

    #[test]
    fn an_island_cannot_be_left() {
        let text = json(&["</script><!--<script>&\u{2028}"]).unwrap();
        assert!(!text.contains(['<', '>', '&', '\u{2028}']), "{text}");
        let back: Vec<String> = serde_json::from_str(&text).unwrap();
        assert_eq!(back, ["</script><!--<script>&\u{2028}"]);
    }
}
