//! Rows out of data files, one at a time, whatever the format.

mod arrow;
mod arrow_messages;
mod classes;
mod columnar;
mod columns;
mod csv;
mod fields;
mod folder;
mod foreign;
mod json_array;
mod jsonl;
mod lines;
mod open;
mod parquet;
mod structures;
mod txt;

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use moetrace_routing::TokenId;

pub(crate) use columns::ChosenColumns;
pub(crate) use folder::{Found, data_files};
pub(crate) use open::known_suffix;
pub(crate) use parquet::check_column;
pub use parquet::{ParquetRows, parquet_rows};

use crate::error::printable;
use crate::{CorpusError, Message, SkipReason};

/// A data file of a source.
#[derive(Debug, Clone)]
pub(crate) struct DataFile {
    pub(crate) path: PathBuf,
    /// Its path below the source, or its name if it is the source; lossy where it is not UTF-8.
    pub(crate) shown: String,
    pub(crate) bytes: u64,
}

/// What one row holds in the chosen column.
#[derive(Debug)]
pub(crate) enum Content<'a> {
    Text(Cow<'a, str>),
    TokenIds(Vec<TokenId>),
    Chat(Vec<Message>),
}

/// A row that cannot be used.
#[derive(Debug)]
pub(crate) struct BadRow {
    pub(crate) reason: SkipReason,
    pub(crate) detail: String,
}

impl BadRow {
    pub(crate) fn new(reason: SkipReason, detail: impl std::fmt::Display) -> Self {
        Self { reason, detail: printable(&detail.to_string()) }
    }

    pub(crate) fn wrong_type(column: &str, found: impl std::fmt::Display, expected: &str) -> Self {
        Self::new(SkipReason::WrongType, format_args!("{column} is {found}, expected {expected}"))
    }

    pub(crate) fn invalid_utf8(error: std::str::Utf8Error) -> Self {
        Self::new(SkipReason::InvalidUtf8, error)
    }

    pub(crate) fn missing(column: &str) -> Self {
        Self::new(SkipReason::MissingColumn, format_args!("no column {column}"))
    }

    pub(crate) fn too_long(limit: usize) -> Self {
        Self::new(SkipReason::TooLong, format_args!("more than {limit} bytes"))
    }
}

/// One row as its reader found it.
#[derive(Debug)]
pub(crate) struct Row<'a> {
    /// Line, from 1, where the row begins; in Parquet and Arrow files the row, from 1.
    pub(crate) line: u64,
    pub(crate) content: Result<Content<'a>, BadRow>,
    pub(crate) label: Option<Cow<'a, str>>,
}

impl Row<'_> {
    pub(crate) fn bad(line: u64, why: BadRow) -> Self {
        Self { line, content: Err(why), label: None }
    }
}

/// Who takes the rows; `Break` ends the file.
pub(crate) type RowSink<'s> = dyn FnMut(Row<'_>) -> Result<ControlFlow<()>, CorpusError> + 's;

/// What a reader is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// The column by name (in csv also by number), or none: found by name.
    pub(crate) column: Option<&'a str>,
    /// Limit on a text.
    pub(crate) text_bytes: usize,
}

impl Wanted<'_> {
    /// Limit on what a text stands in: escapes make it up to six times as long, and a row has more columns.
    pub(crate) fn record_bytes(&self) -> usize {
        self.text_bytes.saturating_mul(8)
    }
}

/// What is known of a file when it has been read.
#[derive(Debug, Default)]
pub(crate) struct FileEnd {
    /// The columns, or none if the file has no row.
    pub(crate) columns: Option<ChosenColumns>,
    /// What is odd about the file, though every row in it was read.
    pub(crate) note: Option<&'static str>,
}

impl From<Option<ChosenColumns>> for FileEnd {
    fn from(columns: Option<ChosenColumns>) -> Self {
        Self { columns, note: None }
    }
}

/// Hands every row of `file` to `sink`.
pub(crate) fn read_rows(
    file: &DataFile,
    wanted: Wanted<'_>,
    sink: &mut RowSink<'_>,
) -> Result<FileEnd, CorpusError> {
    let path = &file.path;
    let columns = match open::format_of(path)? {
        open::Format::JsonLines => jsonl::read_lines(path, wanted, sink)?,
        open::Format::Json => jsonl::read_json(path, wanted, sink)?,
        open::Format::Csv { delimiter } => csv::read(path, delimiter, wanted, sink)?,
        open::Format::Text => txt::read(path, wanted, sink)?,
        open::Format::Parquet => parquet::read(path, wanted, sink)?,
        open::Format::Arrow => return arrow::read(path, wanted, sink),
    };
    Ok(columns.into())
}

fn damaged_or_io(path: &Path, compressed: bool, error: std::io::Error) -> CorpusError {
    let cut_off = error.kind() == std::io::ErrorKind::UnexpectedEof;
    if compressed || cut_off {
        CorpusError::damaged(path, error)
    } else {
        CorpusError::io("read", path, error)
    }
}
