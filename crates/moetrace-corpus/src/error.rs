//! What can be wrong with a data set, a tokenizer or a setting.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use moetrace_routing::RoutingError;

use crate::{SkipCounts, SkipReason, SkippedRow};

/// A corpus could not be read, planned or packed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the message of each variant says what its fields are")]
pub enum CorpusError {
    #[error("no data set given, expected at least one")]
    NoSources,
    #[error(
        "data set {spec:?}: {name:?} cannot be its name, expected 1 to 100 of A-Z a-z 0-9 . _ - beginning with a letter or digit"
    )]
    SourceName { spec: String, name: String },
    #[error("data set {spec:?} has no path, expected NAME=PATH[:column]")]
    SourcePath { spec: String },
    #[error("two data sets are named {name}, expected different names")]
    SameName { name: String },
    #[error("{setting} is {found}, expected {expected}")]
    Setting { setting: &'static str, found: u64, expected: &'static str },
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "{}: not a known data format, expected .jsonl, .ndjson, .json, .csv, .tsv or .txt (these also .gz, .zst), .parquet or .arrow",
        path.display()
    )]
    UnknownFormat { path: PathBuf },
    #[error("{} is {found}, expected UTF-8", path.display())]
    Encoding { path: PathBuf, found: &'static str },
    #[error("{} is a Feather file of version 1, expected version 2, which is Arrow IPC", path.display())]
    FeatherV1 { path: PathBuf },
    #[error("{} is {found}, expected a file or a folder of files: a data set is read twice", path.display())]
    NoRegularFile { path: PathBuf, found: &'static str },
    #[error("data set {dataset}: {} holds no data file that can be read", path.display())]
    NoFiles { dataset: String, path: PathBuf },
    #[error(
        "{}: one JSON object over several lines, expected an array of objects or one object per line",
        path.display()
    )]
    NestedJson { path: PathBuf },
    #[error("{}: no column of a name known to hold text; columns: {columns}; name one as PATH:COLUMN", path.display())]
    NoTextColumn { path: PathBuf, columns: ColumnNames },
    #[error("{}: no column {column:?}; columns: {columns}", path.display())]
    MissingColumn { path: PathBuf, column: String, columns: ColumnNames },
    #[error(
        "data set {dataset}: column {column:?} holds {holds}, which needs a tokenizer; expected input_ids without one"
    )]
    NoTokenizer { dataset: String, column: String, holds: &'static str },
    #[error(
        "data set {dataset}: column {column:?} holds conversations, but the tokenizer has no chat template"
    )]
    NoChatTemplate { dataset: String, column: String },
    #[error("{} is damaged: {detail}", path.display())]
    Damaged { path: PathBuf, detail: String },
    #[error("{} is encrypted Parquet, which is not read", path.display())]
    Encrypted { path: PathBuf },
    #[error("{} changed while it was read", path.display())]
    Changed { path: PathBuf },
    #[error("{}:{line}: {reason}: {detail}", path.display())]
    Row { path: PathBuf, line: u64, reason: SkipReason, detail: String },
    #[error("data set {dataset}: none of its {rows} rows can be used; left out: {skipped}")]
    NothingUsable { dataset: String, rows: u64, skipped: SkipCounts, examples: Vec<SkippedRow> },
    #[error("data set {dataset} has more than {limit} rows")]
    TooManyRows { dataset: String, limit: u64 },
    #[error("{} has {bytes} bytes, expected at most {limit}", path.display())]
    TokenizerSize { path: PathBuf, bytes: u64, limit: u64 },
    #[error("{} is no tokenizer that can be used: {detail}", path.display())]
    Tokenizer { path: PathBuf, detail: String },
    #[error("{} asks for the beginning-of-sequence token {token:?}, which the vocabulary lacks", path.display())]
    UnknownBos { path: PathBuf, token: String },
    #[error("the tokenizer gave up on a text of {bytes} bytes: {detail}")]
    Encode { bytes: usize, detail: String },
    #[error("{} cannot be used as a chat template: {detail}", path.display())]
    BadTemplate { path: PathBuf, detail: String },
    #[error("the tokenizer has no chat template for a conversation of {messages} messages")]
    NoTemplate { messages: usize },
    #[error("the chat template refused a conversation of {messages} messages: {detail}")]
    Template { messages: usize, detail: String },
    #[error(transparent)]
    Batch(#[from] RoutingError),
}

impl CorpusError {
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, path: path.to_owned(), source }
    }

    pub(crate) fn damaged(path: &Path, detail: impl fmt::Display) -> Self {
        Self::Damaged { path: path.to_owned(), detail: printable(&detail.to_string()) }
    }
}

/// Column names of a foreign file, shown with control characters escaped and at most 40 of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ColumnNames(pub Vec<String>);

/// Wider tables are cut off in messages.
const COLUMNS_SHOWN: usize = 40;

impl fmt::Display for ColumnNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (i, name) in self.0.iter().take(COLUMNS_SHOWN).enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{}", printable(name))?;
        }
        match self.0.len().saturating_sub(COLUMNS_SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// Longer foreign text is cut off in messages.
const CHARS_SHOWN: usize = 200;

/// Foreign text that can be shown on a terminal: control characters escaped, cut at 200 characters.
pub(crate) fn printable(text: &str) -> String {
    let mut shown = String::new();
    for (i, c) in text.chars().enumerate() {
        if i == CHARS_SHOWN {
            shown.push('…');
            break;
        }
        if c.is_control() { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_is_shown_without_control_characters_and_not_endlessly() {
        assert_eq!(printable("a\u{1b}[31mé\n"), "a\\u{1b}[31mé\\n");
        assert_eq!(printable(&"x".repeat(500)).chars().count(), 201);
        let many = ColumnNames((0..50).map(|i| format!("c{i}")).collect());
        assert!(many.to_string().ends_with("c39 and 10 more"));
    }
}
