//! What can go wrong between files of other tools and runs.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use moetrace_run::RunError;

/// Foreign files that cannot be read, runs that cannot be written elsewhere. Lines count from 1, rows from 0.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the message of each variant says what its fields are")]
pub enum ExchangeError {
    #[error("{action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{} exists already", path.display())]
    Exists { path: PathBuf },
    #[error("{} is inside the run {}, whose folder holds the run's own files", path.display(), run.display())]
    InsideRun { path: PathBuf, run: PathBuf },
    #[error("{}: {what}", path.display())]
    File { path: PathBuf, what: String },
    #[error("{}, line {line}: {what}", path.display())]
    Line { path: PathBuf, line: u64, what: String },
    #[error("{}, row {row}: {what}", path.display())]
    Row { path: PathBuf, row: u64, what: String },
    #[error("{}: {what}; {flag} says it", path.display())]
    NotSaid { path: PathBuf, what: &'static str, flag: &'static str },
    #[error("{}: none of its {shards} shards is committed", path.display())]
    Empty { path: PathBuf, shards: usize },
    #[error(transparent)]
    Run(#[from] RunError),
}

impl ExchangeError {
    pub(crate) fn file(path: &Path, what: impl Into<String>) -> Self {
        Self::File { path: path.to_owned(), what: what.into() }
    }

    pub(crate) fn row(path: &Path, row: u64, what: impl Into<String>) -> Self {
        Self::Row { path: path.to_owned(), row, what: what.into() }
    }
}

/// Opens a regular file of others. A pipe is refused: whoever opens one may wait for ever, and files are read twice.
pub(crate) fn open_file(path: &Path) -> Result<File, ExchangeError> {
    if !std::fs::metadata(path).on("cannot read", path)?.is_file() {
        return Err(ExchangeError::file(path, "it is no regular file"));
    }
    File::open(path).on("cannot read", path)
}

/// Says which file an I/O error happened to.
pub(crate) trait OnPath<T> {
    fn on(self, action: &'static str, path: &Path) -> Result<T, ExchangeError>;
}

impl<T> OnPath<T> for io::Result<T> {
    fn on(self, action: &'static str, path: &Path) -> Result<T, ExchangeError> {
        self.map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => ExchangeError::file(path, "it ends too early".to_owned()),
            _ => ExchangeError::Io { action, path: path.to_owned(), source },
        })
    }
}
