//! The chosen model: whether it is there, what has to be downloaded, and whether its plan fits.

use std::path::PathBuf;

use moetrace_corpus::{CorpusSettings, TextTokenizer};
use moetrace_model::Precision;
use moetrace_run::ContentSettings;

use super::hub::Asked;
use super::{Check, State};
use crate::args::{CollectArgs, PlanArgs};
use crate::device::HostMemory;
use crate::hub::{self, Downloads};
use crate::inputs::{Inputs, corpus_settings};
use crate::model_plan::ModelPlan;
use crate::prepare::{Settings, open_tokenizer};
use crate::progress::Progress;
use crate::show::{Estimate, bytes, thousands};

/// What is known of the model and the texts.
pub(super) struct Looked {
    /// The model's line, and that of the texts.
    pub(super) checks: [Check; 2],
    /// Whether both were found: here, or in the Hub's lists.
    pub(super) is_found: bool,
    /// Bytes that are to be downloaded, texts included.
    pub(super) missing: u64,
    /// Bytes of the quantised copy that is to be kept.
    pub(super) kept: u64,
    /// The run's folder, the most that is written there, and what the run would record.
    pub(super) output: Option<(PathBuf, u64, ContentSettings)>,
}

impl Looked {
    fn nothing(model: Check) -> Self {
        let texts = Check::not_ok("texts", State::Note, "not looked at", "see the line before");
        Self { checks: [model, texts], is_found: false, missing: 0, kept: 0, output: None }
    }
}

/// Looks for what the arguments name, as `plan` does, and lays its memory out.
pub(super) fn look(given: &PlanArgs, asked: &Asked, mut settings: Settings) -> Looked {
    // A Hub that does not answer once is not waited for again: its cache may have everything.
    let offline = given.collect.offline || !asked.is_reachable;
    let args = CollectArgs { offline, ..given.collect.clone() };
    let mut progress = Progress::new(true);
    // A folder needs no client, and so none that cannot be set up.
    let client = hub::hasty_client(offline).ok();
    let inputs = match Inputs::find_by(client, &args, &mut settings, &mut progress) {
        Ok(inputs) => inputs,
        Err(failure) => {
            let mut model = Check::refused("model", &failure);
            if failure.name == "E-OFFLINE" && !given.collect.offline {
                model.found = model.found.replacen("offline", "the Hub cannot be asked", 1);
                model.fix = fix_of_hub(asked).or(model.fix);
            }
            return Looked::nothing(model);
        }
    };
    let missing = inputs.missing().map_or(0, Downloads::missing);
    let planned = ModelPlan::ahead(&args, &inputs, given.gpu, &mut settings, &progress)
        .and_then(|plan| Ok((Estimate::at_most(&plan)?, plan)));
    let (estimate, plan) = match planned {
        Ok(planned) => planned,
        Err(failure) => {
            let nothing = Looked::nothing(Check::refused("model", &failure));
            return Looked { is_found: true, missing, ..nothing };
        }
    };
    let fits = fits(&inputs.name, &plan, &estimate, missing);
    let checks = match open_tokenizer(&inputs.model) {
        Err(failure) => Looked::nothing(Check::refused("model", &failure)).checks,
        Ok(tokenizer) => {
            let texts = texts(&args, &inputs, tokenizer.as_ref());
            [reached(with_tokenizer(fits, tokenizer.is_some()), missing, asked), texts]
        }
    };
    let kept = if args.cache_quantized { estimate.weight_bytes } else { 0 };
    let output = Some((plan.folder.root().to_owned(), estimate.output_bytes, plan.content));
    Looked { checks, is_found: true, missing, kept, output }
}

/// What to do where the Hub is not asked.
fn fix_of_hub(asked: &Asked) -> Option<String> {
    asked.checks.iter().find_map(|check| check.fix.clone())
}

/// What is missing cannot be had where the Hub cannot.
fn reached(model: Check, missing: u64, asked: &Asked) -> Check {
    if missing == 0 || asked.is_reachable || model.state == State::Fails {
        return model;
    }
    let found = format!("{}, and the Hub is not asked", model.found);
    Check::not_ok("model", State::Fails, found, fix_of_hub(asked).unwrap_or_default())
}

fn with_tokenizer(model: Check, has_tokenizer: bool) -> Check {
    if has_tokenizer || model.state != State::Ok {
        return model;
    }
    let found = format!("{}; it has no tokenizer.json, without which only input_ids are taken", model.found);
    let fix = "put the model's tokenizer.json beside its config.json, or name data sets of input_ids";
    Check::not_ok("model", State::Note, found, fix)
}

/// Whether the texts can be read: one of each data set is taken, for which all are looked at. Those of the Hub are
/// looked at once they are here.
fn texts(args: &CollectArgs, inputs: &Inputs, tokenizer: Option<&TextTokenizer>) -> Check {
    let missing = inputs.downloads.as_ref().map_or(0, Downloads::missing_texts);
    if missing > 0 {
        return Check::ok("texts", format!("looked at once they are here: {} to download", bytes(missing)));
    }
    let settings = CorpusSettings { traces: inputs.sources.len(), ..corpus_settings(args) };
    match moetrace_corpus::plan(&inputs.sources, tokenizer, &settings, &mut |_| {}) {
        Ok(plan) => {
            let usable = plan.datasets.iter().map(|dataset| dataset.usable).sum();
            let sets = plan.datasets.len();
            let sets = if sets == 1 { "1 data set".to_owned() } else { format!("{sets} data sets") };
            Check::ok("texts", format!("{} that can be taken, of {sets}", thousands(usable)))
        }
        Err(error) => Check::refused("texts", &error.into()),
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
        if check.state == State::Fails && precision == Precision::Nf4 {
            check.fix = Some(format!("{LESS}; on a GPU weights need not fit"));
        }
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

const LESS: &str = "a smaller --tokens-per-pass and fewer --threads take less";

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
    let fix = format!("--precision nf4 holds weights in 4 bits, {LESS}; on a GPU weights need not fit");
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
