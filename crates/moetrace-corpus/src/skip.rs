//! Why a row of a source became no sample, and how often.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// Why a row was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SkipReason {
    /// Not more characters than asked for after trimming.
    TooShort,
    /// The same trimmed text (or token ids) stands in an earlier row of the data set.
    Duplicate,
    /// The line is not one JSON value, or a string in it is no Unicode text.
    BrokenJson,
    /// A quote of the record is still open where the file ends, so that the rows behind it are part of it.
    UnclosedQuote,
    /// The column holds something else than expected, null included.
    WrongType,
    /// Bytes that are not UTF-8.
    InvalidUtf8,
    /// The row has no such column.
    MissingColumn,
    /// The text, or the line that holds it, exceeds the byte limit.
    TooLong,
    /// A token id that the model's vocabulary has not.
    OutOfVocabulary,
    /// No token at all.
    EmptyAfterTokenizing,
    /// The tokenizer failed on the text, or stopped splitting it half-way.
    TokenizerGaveUp,
    /// The chat template refused the conversation.
    TemplateRefused,
}

impl SkipReason {
    /// Whether the row is faulty, so that a strict plan stops at it; short and repeated texts are not.
    pub fn is_fault(self) -> bool {
        !matches!(self, Self::TooShort | Self::Duplicate)
    }

    /// The reason in `snake_case`, as manifests spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::TooShort => "too_short",
            Self::Duplicate => "duplicate",
            Self::BrokenJson => "broken_json",
            Self::UnclosedQuote => "unclosed_quote",
            Self::WrongType => "wrong_type",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::MissingColumn => "missing_column",
            Self::TooLong => "too_long",
            Self::OutOfVocabulary => "out_of_vocabulary",
            Self::EmptyAfterTokenizing => "empty_after_tokenizing",
            Self::TokenizerGaveUp => "tokenizer_gave_up",
            Self::TemplateRefused => "template_refused",
        }
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Rows left out, by reason.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct SkipCounts(BTreeMap<SkipReason, u64>);

impl SkipCounts {
    /// How many rows were left out for `reason`.
    pub fn get(&self, reason: SkipReason) -> u64 {
        self.0.get(&reason).copied().unwrap_or(0)
    }

    /// All reasons that occurred with their counts, in a fixed order.
    pub fn iter(&self) -> impl Iterator<Item = (SkipReason, u64)> + '_ {
        self.0.iter().map(|(&reason, &rows)| (reason, rows))
    }

    /// All rows left out.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Whether no row was left out.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn add(&mut self, reason: SkipReason) {
        *self.0.entry(reason).or_default() += 1;
    }
}

/// `12 too_short, 1 broken_json`, or `none`.
impl fmt::Display for SkipCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (i, (reason, rows)) in self.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{rows} {reason}")?;
        }
        Ok(())
    }
}

/// One faulty row, for the user to look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SkippedRow {
    /// The file, relative to the source.
    pub file: String,
    /// Its line from 1; in Parquet and Arrow files its row from 1.
    pub line: u64,
    /// Why it was left out.
    pub reason: SkipReason,
    /// What was found, control characters escaped.
    pub detail: String,
}

/// `file:line: reason: detail`.
impl fmt::Display for SkippedRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.file, self.line, self.reason, self.detail)
    }
}
