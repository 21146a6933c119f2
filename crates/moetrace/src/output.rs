//! Standard output and standard error, which may be pipes that close early.

use std::io::{self, Write as _};

use serde::Serialize;

use crate::failure::{Failure, code};

/// Text for a terminal: control characters of foreign names are shown and not obeyed, lines and tabs aside.
pub(crate) fn printable(text: &str) -> String {
    let obeyed = |c: &char| !c.is_control() || matches!(c, '\n' | '\t');
    let shown = |c: char| if obeyed(&c) { c.to_string() } else { c.escape_default().to_string() };
    if text.chars().all(|c| obeyed(&c)) { text.into() } else { text.chars().map(shown).collect() }
}

/// Prints words and tables.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    print_raw(&printable(text))
}

/// Prints text as it is; a reader that has gone away (`| head`) is no error.
pub(crate) fn print_raw(text: &str) -> Result<(), Failure> {
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
    let _ = writeln!(io::stderr().lock(), "{}", printable(&line.to_string()));
}

/// JSON with the control characters escaped that it may hold as they are, DEL and those from 0x80 on: terminals obey
/// some of them. They occur in strings only.
fn json_printable(text: &str) -> String {
    let shown = |c: char| match c {
        '\u{7f}'..='\u{9f}' => format!("\\u{:04x}", u32::from(c)),
        _ => c.to_string(),
    };
    if text.contains(|c| matches!(c, '\u{7f}'..='\u{9f}')) {
        text.chars().map(shown).collect()
    } else {
        text.into()
    }
}

/// Prints a value as indented JSON.
pub(crate) fn print_json<T: Serialize>(value: &T) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| {
        let what = format!("cannot write JSON: {error}");
        Failure::new(code::INTERNAL, "E-INTERNAL", what, "please report this line")
    })?;
    print_raw(&(json_printable(&text) + "\n"))
}
