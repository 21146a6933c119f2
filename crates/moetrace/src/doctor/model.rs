//! The chosen model: whether it is there, what has to be downloaded, and whether its plan fits.

use std::path::PathBuf;

use super::hub::Asked;
use super::{Check, State};
use crate::args::{CollectArgs, PlanArgs};
use crate::device::HostMemory;
use crate::failure::Failure;
use crate::hub::Downloads;
use crate::inputs::Inputs;
use crate::model_plan::ModelPlan;
use crate::prepare::Settings;
use crate::progress::Progress;
use crate::show::{Estimate, bytes, thousands};

/// What is known of the model.
pub(super) struct Looked {
    /// The model's line.
    pub(super) check: Check,
    /// Bytes that are to be downloaded, texts included.
    pub(super) missing: u64,
    /// The run's folder and the most that is written there.
    pub(super) output: Option<(PathBuf, u64)>,
}

/// Looks for what the arguments name, as `plan` does, and lays its memory out.
pub(super) fn look(given: &PlanArgs, asked: &Asked, mut settings: Settings) -> Looked {
    // A Hub that does not answer once is not waited for again: its cache may have everything.
    let offline = given.collect.offline || !asked.is_reachable;
    let args = CollectArgs { offline, ..given.collect.clone() };
    let mut progress = Progress::new(true);
    let nothing =
        |failure: &Failure| Looked { check: Check::refused("model", failure), missing: 0, output: None };
    let inputs = match Inputs::find(&args, &mut settings, &mut progress) {
        Ok(inputs) => inputs,
        Err(failure) => {
            let mut looked = nothing(&failure);
            if failure.name == "E-OFFLINE" && !given.collect.offline {
                let help = asked.checks.iter().find_map(|check| check.fix.clone());
                looked.check.fix = help.or(looked.check.fix);
            }
            return looked;
        }
    };
    let missing = inputs.missing().map_or(0, Downloads::missing);
    let planned = ModelPlan::ahead(&args, &inputs, given.gpu, &mut settings, &progress)
        .and_then(|plan| Ok((Estimate::at_most(&plan)?, plan)));
    match planned {
        Ok((estimate, plan)) => {
            let mut check = fits(&inputs.name, &plan, &estimate, missing);
            if check.state == State::Ok && !inputs.model.join("tokenizer.json").exists() {
                let found = format!(
                    "{}; it has no tokenizer.json, without which only input_ids are taken",
                    check.found
                );
                let fix =
                    "put the model's tokenizer.json beside its config.json, or name data sets of input_ids";
                check = Check::not_ok("model", State::Note, found, fix);
            }
            let output = (plan.folder.root().to_owned(), estimate.output_bytes);
            Looked { check, missing, output: Some(output) }
        }
        Err(failure) => Looked { missing, ..nothing(&failure) },
    }
}

/// A plan that is there fits a GPU; what the processor takes is compared with the host's memory.
fn fits(name: &str, plan: &ModelPlan, estimate: &Estimate, missing: u64) -> Check {
    let precision = plan.cpu.precision;
    let here = if missing == 0 { String::new() } else { format!("; {} to download", bytes(missing)) };
    let Some(gpu) = &plan.gpu else {
        let host = HostMemory::read(std::path::Path::new("/"));
        let how = format!("{name} in {precision} on the processor");
        let mut check = on_processor(&how, estimate, plan.execution.tokens_per_pass, host);
        check.found += &here;
        return check;
    };
    let (facts, fit) = (&gpu.facts, &gpu.fit);
    let (memory, limits) = (fit.memory, &fit.limits);
    let where_ =
        if gpu.is_here() { format!("GPU {}", facts.ordinal) } else { format!("a GPU {}", facts.name) };
    let waits =
        if memory.host > 0 { format!(" and {} page-locked", bytes(memory.host)) } else { String::new() };
    let found = format!(
        "{name} in {precision} fits on {where_}: {} of at most {} ({}){waits}, {} tokens a pass{here}",
        bytes(memory.total()),
        bytes(limits.device),
        limits.device_source(),
        thousands(fit.tokens_per_pass as u64)
    );
    Check::ok("model", found)
}

fn on_processor(how: &str, estimate: &Estimate, tokens: usize, host: HostMemory) -> Check {
    let need = estimate.weight_bytes.saturating_add(estimate.activation_bytes);
    let needs = format!(
        "{} of weights and {} for a pass of {} tokens",
        bytes(estimate.weight_bytes),
        bytes(estimate.activation_bytes),
        thousands(tokens as u64)
    );
    if need <= host.available {
        return Check::ok("model", format!("{how} fits")).needing(needs);
    }
    let found = format!("{how} does not fit: {} of memory can be had", bytes(host.available));
    let fix = "--precision nf4 holds weights in 4 bits, a smaller --tokens-per-pass takes less; on a GPU weights need not fit";
    Check::not_ok("model", State::Fails, found, fix).needing(needs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_needs_weights_and_a_pass_in_memory() {
        let estimate =
            Estimate { weight_bytes: 8_000_000_000, activation_bytes: 1_000_000_000, output_bytes: 0 };
        let with = |available| {
            let host = HostMemory { total: 16_000_000_000, available };
            on_processor("a/b in nf4 on the processor", &estimate, 4096, host)
        };
        assert_eq!(with(9_000_000_000).state, State::Ok);
        let short = with(8_999_999_999);
        assert_eq!(short.state, State::Fails);
        assert!(short.needs.unwrap().contains("8.00 GB of weights") && short.fix.unwrap().contains("nf4"));
    }
}
