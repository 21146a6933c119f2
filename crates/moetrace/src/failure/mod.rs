//! What a user sees when something goes wrong: one line that says what and where, one line what to type.

use std::fmt;
use std::io;
use std::path::Path;

use moetrace_run::RunError;

mod compare;
mod exchange;
mod hub;
mod inputs;

/// Exit codes; documented in docs/messages.md and stable.
pub(crate) mod code {
    /// Anything without a code of its own.
    pub(crate) const OTHER: u8 = 1;
    /// The command line is wrong.
    pub(crate) const USAGE: u8 = 2;
    /// Data or model are bad; trying again will not help.
    pub(crate) const BAD_INPUT: u8 = 65;
    /// An input is not there.
    pub(crate) const NO_INPUT: u8 = 66;
    /// The Hub cannot be reached, or answers what it should not.
    pub(crate) const UNAVAILABLE: u8 = 69;
    /// A bug of moetrace.
    pub(crate) const INTERNAL: u8 = 70;
    /// The output cannot be created.
    pub(crate) const NO_OUTPUT: u8 = 73;
    /// Reading or writing failed, a full disk included.
    pub(crate) const IO: u8 = 74;
    /// Try again later.
    pub(crate) const LATER: u8 = 75;
    /// Permission denied.
    pub(crate) const PERMISSION: u8 = 77;
    /// The run folder belongs to other settings, or a configuration file is wrong.
    pub(crate) const CONFIG: u8 = 78;
}

/// A failure as it is shown and as it ends the process.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Exit code.
    pub(crate) exit: u8,
    /// Stable short name, `E-…`.
    pub(crate) name: &'static str,
    /// What happened.
    pub(crate) what: String,
    /// What to type or do next.
    pub(crate) help: Option<String>,
    /// clap's own message, which brings its own hints.
    pub(crate) usage: Option<clap::Error>,
}

impl Failure {
    /// A failure with what to do next.
    pub(crate) fn new(
        exit: u8,
        name: &'static str,
        what: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self { exit, name, what: what.into(), help: Some(help.into()), usage: None }
    }

    /// A file outside of run folders that cannot be written.
    pub(crate) fn output(path: &Path, source: &io::Error) -> Self {
        let what = format!("cannot write {}: {source}", path.display());
        if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            return Self::new(code::IO, "E-DISK", what, "free space and run the same command again");
        }
        let exit = match io_code(source, false) {
            code::IO => code::NO_OUTPUT,
            other => other,
        };
        Self::new(exit, "E-IO", what, "name a place that can be written")
    }

    /// A configuration file that cannot be used.
    pub(crate) fn config_file(file: &Path, why: &str) -> Self {
        let help = "keys are the long flags of 'moetrace collect --help', such as max-length = 256";
        Self::new(code::CONFIG, "E-CONFIG-FILE", format!("{}: {}", file.display(), why.trim_end()), help)
    }

    /// A value that the flag of the same name would refuse.
    pub(crate) fn config_value(file: &Path, refused: &clap::Error) -> Self {
        let text = refused.to_string();
        let first = text.lines().next().unwrap_or_default();
        Self::config_file(file, first.strip_prefix("error: ").unwrap_or(first))
    }

    /// A key that no flag has.
    pub(crate) fn config_key(file: &Path, key: &str, command: &clap::Command) -> Self {
        let known = command.get_arguments().filter_map(clap::Arg::get_long).filter(|key| *key != "config");
        let known: Vec<&str> = known.collect();
        let what = format!("{}: unknown key {key:?}", file.display());
        Self::new(code::CONFIG, "E-CONFIG-FILE", what, format!("known keys: {}", known.join(", ")))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(usage) = &self.usage {
            let text = usage.to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            return write!(f, "error[{}]: {}", self.name, text.trim_end());
        }
        write!(f, "error[{}]: {}", self.name, self.what)?;
        match &self.help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

impl From<clap::Error> for Failure {
    fn from(error: clap::Error) -> Self {
        let exit = u8::try_from(error.exit_code()).unwrap_or(code::USAGE);
        Self { exit, name: "E-USAGE", what: String::new(), help: None, usage: Some(error) }
    }
}

/// The exit code of an I/O error on an input (`input`) or on the run folder.
fn io_code(error: &io::Error, input: bool) -> u8 {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => code::PERMISSION,
        io::ErrorKind::NotFound if input => code::NO_INPUT,
        _ => code::IO,
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        let what = told(&error);
        let new = |exit, name, help: &str| Self::new(exit, name, what.clone(), help);
        match error {
            RunError::Corpus(error) => error.into(),
            RunError::Model(error) => error.into(),
            RunError::Trace(error) => error.into(),
            RunError::OutOfMemory { .. } => new(code::LATER, "E-OOM", inputs::OUT_OF_MEMORY),
            RunError::Io { source, action, .. } => io_failure(&source, action, what),
            RunError::NotARun { .. } => {
                new(code::NO_INPUT, "E-NORUN", "name a folder that 'moetrace collect --out RUN' made")
            }
            RunError::ForeignFolder { .. } => new(
                code::NO_OUTPUT,
                "E-FOREIGN",
                "name another folder with --out; moetrace writes into no folder of others",
            ),
            // Nothing can be repaired without knowing what the run is.
            RunError::Damaged { path, .. } if path.ends_with("manifest.json") => new(
                code::BAD_INPUT,
                "E-DAMAGED",
                "put the file back, or run the same collect or import with --fresh to start over",
            ),
            RunError::Damaged { .. } => new(
                code::BAD_INPUT,
                "E-DAMAGED",
                "run the same collect or import with --repair, or with --fresh to start over",
            ),
            RunError::Hash { .. }
            | RunError::Size { .. }
            | RunError::Missing { .. }
            | RunError::Rows { .. } => new(
                code::BAD_INPUT,
                "E-HASH",
                "the same collect or import with --repair does only the damaged shards again",
            ),
            RunError::OtherSettings { .. } => new(
                code::CONFIG,
                "E-MANIFEST",
                "use a new --out, or --fresh to start over (keeps the old folder as RUN.bak)",
            ),
            error if compare::is_refusal(&error) => compare::refused(&error, what),
            RunError::ShardRange { .. } => {
                new(code::USAGE, "E-SHARDS", "'moetrace plan' without --shards shows those of each data set")
            }
            RunError::Locked { .. } => new(
                code::LATER,
                "E-LOCKED",
                "wait for it, then run the same command again; 'moetrace status RUN' shows each shard",
            ),
            RunError::TokenRange { .. } => {
                new(code::BAD_INPUT, "E-TOKENS", "the tokenizer or the input_ids belong to another model")
            }
            RunError::NotFinite { .. } | RunError::LossNotFinite { .. } => new(
                code::BAD_INPUT,
                "E-NAN",
                "the checkpoint may be damaged; --precision f32 rules out overflow",
            ),
            _ => new(code::OTHER, "E-RUN", "nothing committed was changed; run the same command again"),
        }
    }
}

fn io_failure(source: &io::Error, action: &str, what: String) -> Failure {
    if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        let help = "committed shards are safe; free space and run the same command again";
        return Failure::new(code::IO, "E-DISK", what, help);
    }
    let create = action.starts_with("cannot create");
    let exit = match io_code(source, false) {
        code::IO if create => code::NO_OUTPUT,
        other => other,
    };
    let help = if create {
        "name a folder that can be created and written with --out"
    } else {
        "committed shards are safe; run the same command again once it works"
    };
    Failure::new(exit, "E-IO", what, help)
}

/// An error with its causes, those left out that it has said already.
fn told(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// The I/O error that caused another, however deep.
fn io_cause<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a io::Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io);
        }
        cause = error.source();
    }
    None
}
