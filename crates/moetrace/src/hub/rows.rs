//! How many rows a Parquet file of the Hub has, before it is here.

use std::path::Path;

use moetrace_corpus::{ParquetRows, parquet_rows};
use moetrace_hub::{Hub, RepoFile, Snapshot};

use crate::failure::{Failure, code};

/// The end of a file that is asked for first; a footer that is longer says so, and is asked for again.
const END: u64 = 1 << 16;

/// The most of a file's end that is looked at: what is longer is no footer of rows of text.
const LONGEST: u64 = 1 << 26;

/// Rows of a file by its footer, of which only the end of the file is fetched.
pub(crate) fn rows_of(hub: &Hub, snapshot: &Snapshot, file: &RepoFile) -> Result<u64, Failure> {
    // By its name on the Hub: it need not be here.
    let path = Path::new(&file.path);
    let mut bytes = END;
    loop {
        match parquet_rows(path, &hub.tail(snapshot, file, bytes)?, file.bytes)? {
            ParquetRows::Known(rows) => return Ok(rows),
            ParquetRows::Needs(more) if more <= LONGEST => bytes = more,
            ParquetRows::Needs(more) => {
                let what =
                    format!("{}: its footer is {more} bytes long, expected at most {LONGEST}", file.path);
                let help = "--file-budget larger than the data set has all of it read without that look";
                return Err(Failure::new(code::BAD_INPUT, "E-DATA", what, help));
            }
        }
    }
}
