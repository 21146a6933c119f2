//! One module per command.

mod collect;
mod compare;
mod doctor;
mod export;
mod import;
mod inspect;
mod metrics;
mod plan;
mod quantize;
mod report;
mod status;
mod synth;
mod verify;

use clap::CommandFactory as _;

pub(crate) use collect::collect;
pub(crate) use compare::compare;
pub(crate) use doctor::doctor;
pub(crate) use export::export;
pub(crate) use import::import;
pub(crate) use inspect::inspect;
pub(crate) use metrics::metrics;
pub(crate) use plan::plan;
pub(crate) use quantize::quantize;
pub(crate) use report::report;
pub(crate) use status::status;
pub(crate) use synth::synth;
pub(crate) use verify::verify;

use crate::failure::Failure;
use crate::output;

/// Prints a completion script.
pub(crate) fn completions(shell: clap_complete::Shell) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut crate::args::Cli::command(), "moetrace", &mut script);
    output::print_raw(&String::from_utf8_lossy(&script))?;
    Ok(0)
}
