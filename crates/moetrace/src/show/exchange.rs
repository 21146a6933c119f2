//! What `export` wrote.

use moetrace_exchange::Exported;

use super::{bytes, counted};

/// One line.
pub(crate) fn exported(out: &str, written: &Exported) -> String {
    format!(
        "{} and {} of {} in {}, {}, {out}\n",
        counted(written.samples, "text"),
        counted(written.tokens, "token"),
        counted(written.written as u64, "shard"),
        counted(written.files as u64, "file"),
        bytes(written.bytes)
    )
}
