//! Standard output and standard error, which may be pipes that close early.

use std::io::{self, Write as _};

use serde::Serialize;

use crate::failure::{Failure, code};

/// Prints text; a reader that has gone away (`| head`) is no error.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let what = format!("cannot write to standard output: {error}");
            Err(Failure::new(code::IO, "E-STDOUT", what, "check where the output goes"))
        }
        _ => Ok(()),
    }
}

/// A line of words for people. Where nobody reads them any more (`2>&1 | head`) the work goes on all the same;
/// `eprintln!` would panic.
pub(crate) fn tell(line: impl std::fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Prints a value as indented JSON.
pub(crate) fn print_json<T: Serialize>(value: &T) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| {
        let what = format!("cannot write JSON: {error}");
        Failure::new(code::INTERNAL, "E-INTERNAL", what, "please report this line")
    })?;
    print(&(text + "\n"))
}
