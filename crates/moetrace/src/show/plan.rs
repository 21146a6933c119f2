//! What a collect would do, and what that needs.

use std::fmt::Write as _;

use moetrace_model::CpuEngine;
use moetrace_routing::WeightPrecision;
use moetrace_run::{ResolvedSetting, Shard};
use serde::Serialize;

use super::placement::gpu_lines;
use super::{bytes, processor, table, thousands, word};
use crate::prepare::Prepared;

/// Bytes a value takes in a shard, by the precision of the model: values that bf16 rounded compress to little
/// more than half. A little more than was measured on all 384 texts of the embedded data sets, and on 96 with every
/// optional column (docs/benchmarks.md, "Trace size"). An estimate, not a promise.
struct ValueBytes {
    weight: f64,
    margin: f64,
    logit: f64,
    hidden: f64,
}

const BF16: ValueBytes = ValueBytes { weight: 1.2, margin: 1.2, logit: 1.35, hidden: 1.7 };
const F32: ValueBytes = ValueBytes { weight: 1.6, margin: 3.3, logit: 3.35, hidden: 3.8 };
/// A weight that is not rounded for the file. Those of a bf16 model have fewer digits than are kept anyway.
const WEIGHT_UNROUNDED: f64 = 3.2;
/// An expert id, as a part of the bits that name one of E experts.
const ID_SHARE: f64 = 0.9;
/// A gate entropy and a loss, whatever the model's precision.
const ENTROPY: f64 = 3.0;
const LOSS: f64 = 3.5;
/// `dataset`, `sample_id` and `position` together; `token_id`.
const PLACE: f64 = 0.3;
const TOKEN_ID: f64 = 1.4;
/// A token's part of the texts in the samples file, and what a text takes there besides.
const TEXT: f64 = 1.1;
const TEXT_ROW: f64 = 60.0;
/// Headers and footer: a column of a data file, a samples file, a hidden file.
const COLUMN: f64 = 540.0;
const SAMPLES_FILE: f64 = 3_800.0;
const HIDDEN_FILE: f64 = 3_000.0;

/// Memory and disk that a run would take.
#[derive(Debug, Clone, Serialize)]
#[expect(clippy::struct_field_names, reason = "the unit belongs to the JSON key")]
pub(crate) struct Estimate {
    /// Weights in memory.
    pub(crate) weight_bytes: u64,
    /// Activations of one pass; on a GPU all buffers.
    pub(crate) activation_bytes: u64,
    /// Parquet files.
    pub(crate) output_bytes: u64,
}

impl Estimate {
    /// Estimates for some of the run's shards from shapes alone; nothing is loaded.
    pub(crate) fn new(prepared: &Prepared, shards: &[Shard]) -> Self {
        let plan = &prepared.plan;
        let samples = shards.iter().flat_map(|s| &plan.corpus.datasets[s.dataset].samples[s.range()]);
        let longest = samples.map(|s| s.tokens.len()).max().unwrap_or(0);
        // Passes never span shards.
        let largest = shards.iter().map(|s| s.tokens).max().unwrap_or(0);
        let tokens = prepared.execution.tokens_per_pass.max(longest) as u64;
        let output_bytes = output_bytes(prepared, shards) as u64;
        if let Some(gpu) = &prepared.gpu {
            let memory = gpu.fit.memory;
            // What takes turns is weights too.
            let weight_bytes = memory.weights.saturating_add(memory.slots);
            return Self { weight_bytes, activation_bytes: memory.buffers, output_bytes };
        }
        let memory = CpuEngine::memory_estimate(&prepared.config, &prepared.cpu);
        let total = memory.total(tokens.min(largest), longest as u64, plan.content.columns.nll);
        Self {
            weight_bytes: memory.weights,
            activation_bytes: total.saturating_sub(memory.weights),
            output_bytes,
        }
    }
}

/// Bytes of all Parquet files of the shards.
fn output_bytes(prepared: &Prepared, shards: &[Shard]) -> f64 {
    let (plan, g) = (&prepared.plan, &prepared.plan.geometry);
    let (content, columns) = (&plan.content, &plan.content.columns);
    let (layers, chosen, experts) = (g.layers().len() as f64, g.chosen() as f64, g.experts() as f64);
    let exact = prepared.plan.model.compute_dtype == "f32";
    let value = if exact { F32 } else { BF16 };
    let unrounded = content.weights == WeightPrecision::Full && exact;
    let weight = if unrounded { WEIGHT_UNROUNDED } else { value.weight };
    let if_on = |on: bool, bytes: f64| if on { bytes } else { 0.0 };

    let id = ID_SHARE * experts.log2().ceil().max(1.0) / 8.0;
    let logits = if_on(columns.logits, value.logit * experts);
    let layer = chosen * (id + weight) + value.margin + ENTROPY + logits;
    let row = PLACE
        + if_on(columns.token_ids, TOKEN_ID)
        + if_on(columns.nll, LOSS)
        + if_on(columns.text, TEXT)
        + layers * layer;
    let of_layer = 4.0 + if_on(columns.logits, 1.0);
    let file = SAMPLES_FILE + COLUMN * (4.0 + layers * of_layer) + if_on(columns.hidden, HIDDEN_FILE);
    let hidden = |tokens: u64| tokens.min(content.hidden_rows as u64) as f64;
    let hidden_rows: f64 = shards.iter().map(|s| hidden(s.tokens)).sum();
    shards.iter().map(|s| s.tokens).sum::<u64>() as f64 * row
        + shards.iter().map(|s| s.samples).sum::<usize>() as f64 * TEXT_ROW
        + shards.len() as f64 * file
        + hidden_rows * layers * g.hidden() as f64 * value.hidden
}

/// Every setting, its value and where it came from.
pub(crate) fn settings(settings: &[ResolvedSetting]) -> String {
    let mut out = String::from("settings\n");
    let width = settings.iter().map(|s| s.name.len()).max().unwrap_or(0);
    for s in settings {
        let _ = writeln!(out, "  {:<width$}  {}  ({})", s.name, s.value, s.source);
    }
    out.push('\n');
    out
}

fn processor_memory(prepared: &Prepared, estimate: &Estimate) -> String {
    format!(
        "memory    about {} of weights and {} for a pass of {} tokens\n",
        bytes(estimate.weight_bytes),
        bytes(estimate.activation_bytes),
        thousands(prepared.execution.tokens_per_pass as u64)
    )
}

/// Data sets with the numbers of their shards, and what the chosen shards take.
pub(crate) fn plan(prepared: &Prepared, chosen: &[Shard], committed: usize, estimate: &Estimate) -> String {
    let plan = &prepared.plan;
    let mut table = table(&["data set", "rows", "usable", "asked for", "texts", "tokens", "cut", "shards"]);
    let mut first = 0;
    for (i, d) in plan.dataset_facts().iter().enumerate() {
        // As --shards takes them.
        let next = first + plan.shards.iter().filter(|s| s.dataset == i).count();
        let shards = if first == next { "none".into() } else { format!("{first}..{next}") };
        first = next;
        table.add_row([
            d.name.clone(),
            thousands(d.rows_seen),
            thousands(d.usable),
            thousands(d.quota),
            thousands(d.samples),
            thousands(d.tokens),
            thousands(d.truncated),
            shards,
        ]);
    }
    let mut out = format!("{table}\n\n");
    let m = &plan.model;
    let _ = writeln!(
        out,
        "model     {} ({}), {} parameters, {} per token, {} on the {}",
        word(&m.name),
        m.family,
        thousands(prepared.config.total_parameters()),
        thousands(prepared.config.active_parameters()),
        m.precision,
        processor(&m.engine)
    );
    let tokens = chosen.iter().map(|s| s.tokens).sum();
    let _ = writeln!(
        out,
        "work      {} texts, {} tokens in {} shards of at most {} tokens, {committed} of them committed",
        thousands(chosen.iter().map(|s| s.samples as u64).sum()),
        thousands(tokens),
        thousands(chosen.len() as u64),
        thousands(plan.content.shard_tokens as u64)
    );
    out.push_str(&match &prepared.gpu {
        Some(gpu) => gpu_lines(gpu, tokens),
        None => processor_memory(prepared, estimate),
    });
    let _ = writeln!(
        out,
        "output    about {} in {}",
        bytes(estimate.output_bytes),
        prepared.folder.root().display()
    );
    let _ = writeln!(out, "plan      {}; nothing has been written", plan.hash());
    out
}
