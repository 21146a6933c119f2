//! Entries of a vocabulary as the text they stand for.
//!
//! Tokenizers write their entries in one of two notations. Byte-level ones (GPT-2's) give each byte a visible character,
//! so that a space is `Ġ` and a Chinese character three letters; others write `▁` for a space and `<0x0A>` for a byte.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// How entries are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notation {
    /// A character for each byte.
    Bytes,
    /// `▁` for a space.
    Spaces,
    /// As they are.
    Plain,
}

impl Notation {
    /// Which one a vocabulary is in: more entries begin with its sign for a space than with the other's. Texts without
    /// spaces, as Chinese ones, have neither sign: then entries are bytes if they are so throughout, and make characters.
    pub(crate) fn of(tokens: &BTreeMap<u32, String>) -> Self {
        let begin = |sign: char| tokens.values().filter(|token| token.starts_with(sign)).count();
        match (begin('Ġ'), begin('▁')) {
            (0, 0) if are_bytes(tokens.values().map(String::as_str)) => Self::Bytes,
            (0, 0) => Self::Plain,
            (bytes, spaces) if bytes > spaces => Self::Bytes,
            _ => Self::Spaces,
        }
    }

    /// The text of an entry; bytes that are no whole character are shown as `[E4 B8]`. An entry that is not in the
    /// notation, as those of special tokens, stays as it is.
    pub(crate) fn text(self, token: &str) -> String {
        let bytes = match self {
            Self::Bytes => token.chars().map(byte).collect(),
            Self::Spaces => named_byte(token).map(|byte| vec![byte]),
            Self::Plain => None,
        };
        match bytes.map(String::from_utf8) {
            Some(Ok(text)) => text,
            Some(Err(error)) => {
                let mut out = String::new();
                for (i, byte) in error.as_bytes().iter().enumerate() {
                    // Writing to a String does not fail.
                    let _ = write!(out, "{}{byte:02X}", if i == 0 { '[' } else { ' ' });
                }
                out + "]"
            }
            None if self == Self::Spaces => token.replace('▁', " "),
            None => token.to_owned(),
        }
    }
}

/// Bytes that GPT-2's table leaves as they are: those of Latin-1 that can be seen.
fn is_seen(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff)
}

/// The byte that a character stands for: itself, or the n-th that cannot be seen for U+0100 + n.
fn byte(c: char) -> Option<u8> {
    match u32::from(c) {
        code @ 0..=0xff => u8::try_from(code).ok().filter(|&byte| is_seen(byte)),
        code => (0..=u8::MAX).filter(|&byte| !is_seen(byte)).nth(code.checked_sub(0x100)? as usize),
    }
}

/// Whether all entries but special ones are of characters that stand for bytes, and some are text beyond ASCII that way.
/// Letters such as é stand for bytes too, but no such letter alone is UTF-8.
fn are_bytes<'a>(tokens: impl Iterator<Item = &'a str>) -> bool {
    let is_special = |token: &&str| token.starts_with('<') && token.ends_with('>');
    let bytes: Option<Vec<Vec<u8>>> =
        tokens.filter(|token| !is_special(token)).map(|token| token.chars().map(byte).collect()).collect();
    let is_text = |bytes: &Vec<u8>| !bytes.is_ascii() && std::str::from_utf8(bytes).is_ok();
    bytes.is_some_and(|entries| entries.iter().any(is_text))
}

/// The byte of `<0x0A>`.
fn named_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notation(tokens: &[&str]) -> Notation {
        Notation::of(&(0..).zip(tokens.iter().map(|&token| token.to_owned())).collect())
    }

    #[test]
    fn bytes_are_text_again_and_parts_of_characters_are_shown_as_bytes() {
        let bytes = notation(&["Ġthe", "Ġa", "ä¸Ģ", "▁"]);
        assert_eq!(bytes, Notation::Bytes);
        let text = ["Ġthe", "ĊĠĠ", "ä¸Ģ", "ï¼Į", "å¤", "Ńé", "plain"].map(|token| bytes.text(token));
        assert_eq!(text, [" the", "\n  ", "一", "，", "[E5 A4]", "[AD E9]", "plain"]);
        // No byte is written like this.
        assert_eq!(bytes.text("<｜begin▁of▁sentence｜>"), "<｜begin▁of▁sentence｜>");
    }

    #[test]
    fn without_a_sign_for_spaces_bytes_are_known_by_the_characters_that_they_make() {
        assert_eq!(notation(&["ï¼Į", "ä¸Ģ", "å¤", "7", "<｜end▁of▁sentence｜>"]), Notation::Bytes);
        assert_eq!(notation(&["，", "一", "7"]), Notation::Plain);
        assert_eq!(notation(&["été", "są", "7"]), Notation::Plain);
        assert_eq!(notation(&["ï¼Į", "一"]), Notation::Plain);
    }

    #[test]
    fn every_byte_has_a_character_of_its_own() {
        let bytes: Vec<u8> = (0..0x144).filter_map(char::from_u32).filter_map(byte).collect();
        let mut sorted = bytes.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..=255).collect::<Vec<u8>>());
    }

    #[test]
    fn signs_for_spaces_are_spaces_and_other_entries_stay() {
        let spaces = notation(&["▁the", "ing", "<0x0A>"]);
        assert_eq!(spaces, Notation::Spaces);
        let text = ["▁the", "▁▁", "<0x0A>", "<0xE4>", "<s>"].map(|token| spaces.text(token));
        assert_eq!(text, [" the", "  ", "\n", "[E4]", "<s>"]);
        let plain = notation(&["the", "<0x0A>"]);
        assert_eq!((plain, plain.text("<0x0A>").as_str()), (Notation::Plain, "<0x0A>"));
    }
}
