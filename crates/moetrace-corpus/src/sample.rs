//! One text on its way to becoming a trace.

use moetrace_routing::{Name, SampleId, TokenId};

/// A tokenised text and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Its row in the source: rows of all files read, in name order, counted from 0, faulty ones included.
    pub id: SampleId,
    /// Its file, an index into [`DatasetPlan::files`](crate::DatasetPlan::files).
    pub file: u32,
    /// Its row in that file, from 0.
    pub row: u32,
    /// Its label, where the source has one.
    pub label: Option<Name>,
    /// Its whole text, if texts are kept; none for token ids.
    pub text: Option<String>,
    /// First 16 bytes of the BLAKE3 of the trimmed text, or of the token ids as little-endian 32-bit
    /// numbers behind the nine bytes `input_ids`.
    pub text_hash: [u8; 16],
    /// Vocabulary ids, 1 to `max_length` of them.
    pub tokens: Vec<TokenId>,
    /// Whether tokens were cut off at `max_length`.
    pub truncated: bool,
    /// Whether the first token is the beginning-of-sequence token.
    pub begins_with_bos: bool,
}
