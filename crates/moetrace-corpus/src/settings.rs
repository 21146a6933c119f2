//! What a plan depends on besides its sources and tokenizer, and what it tells while it is made.

use moetrace_routing::{Name, TokenId};

use crate::CorpusError;

/// Positions are recorded as 16-bit numbers.
const LONGEST: usize = 1 << 16;

/// Settings of a plan. Two plans with equal settings, sources and tokenizer are equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorpusSettings {
    /// Samples wanted over all data sets, shared equally; remainders go to the first ones.
    pub traces: usize,
    /// Tokens kept of each sample, a beginning-of-sequence token included; 1 to 65,536.
    pub max_length: usize,
    /// Texts of more than this many characters after trimming are used.
    pub min_chars: usize,
    /// Texts of more bytes than this are left out.
    pub max_text_bytes: usize,
    /// Decides which rows, and which files beyond `file_budget`, are taken.
    pub seed: u64,
    /// Whether the first faulty row is an error instead of a count.
    pub strict: bool,
    /// Whether samples keep their text.
    pub keep_text: bool,
    /// Entries of the model's vocabulary: rows with other token ids are left out. None: any id will do.
    pub vocabulary: Option<usize>,
    /// The model's beginning-of-sequence token, looked for in `input_ids` where the tokenizer has none.
    pub bos: Option<TokenId>,
    /// Bytes read of one data set; beyond it a seeded choice of whole files is read, at least one.
    pub file_budget: u64,
}

impl Default for CorpusSettings {
    fn default() -> Self {
        Self {
            traces: 20_000,
            max_length: 512,
            min_chars: 50,
            max_text_bytes: 1 << 20,
            seed: 0,
            strict: false,
            keep_text: false,
            vocabulary: None,
            bos: None,
            file_budget: 2_000_000_000,
        }
    }
}

impl CorpusSettings {
    /// Samples wanted of data set `i` of `of`, which is not 0.
    pub fn quota(&self, i: usize, of: usize) -> usize {
        self.traces / of + usize::from(i < self.traces % of)
    }

    pub(crate) fn check(&self) -> Result<(), CorpusError> {
        let bad = |setting, found: usize, expected| {
            Err(CorpusError::Setting { setting, found: found as u64, expected })
        };
        if self.traces == 0 {
            return bad("traces", 0, "at least 1");
        }
        if self.max_length == 0 || self.max_length > LONGEST {
            return bad("max-length", self.max_length, "1 to 65536 tokens");
        }
        if self.max_text_bytes == 0 {
            return bad("max-text-bytes", 0, "at least 1");
        }
        Ok(())
    }
}

/// How far a plan has come.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CorpusEvent {
    /// A data set is about to be read.
    Opened {
        /// The data set.
        dataset: Name,
        /// Files to be read.
        files: usize,
        /// Their size on disk.
        bytes: u64,
    },
    /// Rows have been read so far.
    Scanned {
        /// The data set.
        dataset: Name,
        /// Rows seen.
        rows: u64,
    },
    /// Samples have been tokenised so far.
    Tokenized {
        /// The data set.
        dataset: Name,
        /// Samples done.
        done: usize,
        /// Samples chosen.
        of: usize,
    },
}
