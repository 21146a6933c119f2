//! Why files of other tools are not read, and runs not written as theirs.

use moetrace_exchange::ExchangeError;

use super::{Failure, code, io_code, io_failure, told};

impl From<ExchangeError> for Failure {
    fn from(error: ExchangeError) -> Self {
        let what = told(&error);
        let help = "docs/exchange.md says what each layout holds; nothing was written";
        match error {
            ExchangeError::Run(error) => error.into(),
            ExchangeError::Io { source, action: "cannot read", .. } => Self::new(
                io_code(&source, true),
                "E-IMPORT",
                what,
                "name files that are there and can be read",
            ),
            ExchangeError::Io { source, action, .. } => io_failure(&source, action, what),
            ExchangeError::Exists { .. } => Self::new(
                code::NO_OUTPUT,
                "E-EXISTS",
                what,
                "name another folder with --out; a .part is left by an export that was killed, and can be removed",
            ),
            ExchangeError::InsideRun { .. } => {
                Self::new(code::USAGE, "E-USAGE", what, "name a folder outside the run with --out")
            }
            ExchangeError::Empty { .. } => Self::new(
                code::BAD_INPUT,
                "E-EMPTY",
                what,
                "'moetrace status RUN' shows each shard; the same collect or import again continues a run",
            ),
            ExchangeError::NotSaid { flag, .. } => {
                Self::new(code::USAGE, "E-USAGE", what, format!("add {flag}"))
            }
            _ => Self::new(code::BAD_INPUT, "E-IMPORT", what, help),
        }
    }
}
