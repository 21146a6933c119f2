//! In: arguments, environment, a terminal.
//! Out: what the crates below do with them; data on standard output, words on standard error, an exit code.
//! Holds: flags, messages, progress, tables, the embedded model.
//! Not here: anything that a library user might want; this is the only crate that knows clocks and stdout.

mod args;
mod command;
mod device;
mod doctor;
mod embedded;
mod failure;
mod hub;
mod inputs;
mod model_plan;
mod on_gpu;
mod output;
mod page;
mod prepare;
mod progress;
mod quantisation;
mod quantised_cache;
mod resident;
mod settings;
mod show;
mod signals;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use clap::error::ErrorKind;

use crate::args::Command;
use crate::failure::{Failure, code};

/// `moetrace` alone shows its help; that is an error in clap's eyes and ends with its exit code.
const NO_ARGUMENTS: ErrorKind = ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;

/// The last panic, kept until it is known whether somebody caught it: decoders of foreign files do.
static PANIC: Mutex<String> = Mutex::new(String::new());

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map_or_else(String::new, |l| format!(" at {}:{}", l.file(), l.line()));
        let what = info.payload_as_str().unwrap_or("unknown");
        *PANIC.lock().unwrap_or_else(PoisonError::into_inner) = format!("{what}{place}");
    }));
    match std::panic::catch_unwind(|| run(std::env::args_os().collect())) {
        Ok(Ok(exit)) => ExitCode::from(exit),
        Ok(Err(failure)) => {
            // Help and version are no errors and go to standard output, as clap has it.
            match &failure.usage {
                Some(usage) if !matches!(failure.exit, code::USAGE) || usage.kind() == NO_ARGUMENTS => {
                    let _ = usage.print();
                }
                _ => output::tell(&failure),
            }
            ExitCode::from(failure.exit)
        }
        Err(_) => {
            let what = PANIC.lock().unwrap_or_else(PoisonError::into_inner).clone();
            output::tell(format_args!(
                "error[E-INTERNAL]: bug in moetrace {}: {what}\n  help: nothing committed was changed; please report this line",
                env!("CARGO_PKG_VERSION")
            ));
            ExitCode::from(code::INTERNAL)
        }
    }
}

fn run(argv: Vec<OsString>) -> Result<u8, Failure> {
    let parsed = settings::parse(argv)?;
    match parsed.cli.command {
        Command::Collect(args) => command::collect(&args, parsed.settings),
        Command::Plan(args) => command::plan(&args, parsed.settings),
        Command::Doctor(args) => command::doctor(&args, parsed.settings),
        Command::Status(args) => command::status(&args),
        Command::Metrics(args) => command::metrics(&args),
        Command::Compare(args) => command::compare(&args),
        Command::Verify(args) => command::verify(&args),
        Command::Export(args) => command::export(&args),
        Command::Import(args) => command::import(&args),
        Command::Report(args) => command::report(&args),
        Command::Inspect(args) => command::inspect(&args),
        Command::Quantize(args) => command::quantize(&args),
        Command::Synth(args) => command::synth(&args),
        Command::Completions { shell } => command::completions(shell),
    }
}
