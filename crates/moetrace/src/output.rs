//! Standard output, which may be a pipe that closes early.

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

/// Prints a value as indented JSON.
pub(crate) fn print_json<T: Serialize>(value: &T) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| {
        let what = format!("cannot write JSON: {error}");
        Failure::new(code::INTERNAL, "E-INTERNAL", what, "please report this line")
    })?;
    print(&(text + "\n"))
}
