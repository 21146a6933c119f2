//! Files of others in binary formats: their readers may panic on damage, and trust the lengths in them.

use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::CorpusError;
use crate::tokenizer::panic_message;

/// Wider tables are refused before anything is decoded.
const COLUMNS: usize = 10_000;

/// Runs a piece of a foreign reader; an error and a panic both mean that the file is damaged.
pub(crate) fn guarded<T, E: Display>(
    path: &Path,
    read: impl FnOnce() -> Result<T, E>,
) -> Result<T, CorpusError> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(CorpusError::damaged(path, error)),
        Err(panic) => Err(CorpusError::damaged(path, panic_message(panic.as_ref()))),
    }
}

/// Refuses absurd widths.
pub(crate) fn check_columns(path: &Path, columns: usize) -> Result<(), CorpusError> {
    if columns <= COLUMNS {
        return Ok(());
    }
    Err(CorpusError::damaged(path, format_args!("it claims {columns} columns, expected at most {COLUMNS}")))
}
