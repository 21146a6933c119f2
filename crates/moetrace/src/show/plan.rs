//! What a collect would do, and what that needs.

use std::fmt::Write as _;

use moetrace_model::CpuEngine;
use moetrace_run::ResolvedSetting;
use serde::Serialize;

use super::{bytes, table, thousands};
use crate::prepare::Prepared;

/// Bytes per id at 6 of 64 experts, per weight, and per margin or entropy: measured on written shards
/// (docs/benchmarks.md, "Trace size"). An estimate, not a promise.
const WEIGHT_BYTES: f64 = 1.45;
const SCORE_BYTES: f64 = 3.2;
/// Bytes of `dataset`, `sample_id`, `position` and `token_id` together, likewise.
const ROW_BYTES: f64 = 2.5;

/// Memory and disk that a run would take.
#[derive(Debug, Clone, Serialize)]
#[expect(clippy::struct_field_names, reason = "the unit belongs to the JSON key")]
pub(crate) struct Estimate {
    /// Weights in memory.
    pub(crate) weight_bytes: u64,
    /// Activations of one pass.
    pub(crate) activation_bytes: u64,
    /// Parquet files.
    pub(crate) output_bytes: u64,
}

impl Estimate {
    /// Estimates from shapes alone; nothing is loaded.
    pub(crate) fn new(prepared: &Prepared) -> Self {
        let plan = &prepared.plan;
        let lengths = plan.corpus.datasets.iter().flat_map(|d| d.samples.iter().map(|s| s.tokens.len()));
        let longest = lengths.max().unwrap_or(0);
        let tokens = prepared.execution.tokens_per_pass.max(longest) as u64;
        let memory = CpuEngine::memory_estimate(&prepared.config, &prepared.cpu);
        let total = memory.total(tokens.min(plan.tokens()), longest as u64, plan.content.columns.nll);
        let g = &plan.geometry;
        let id = (g.experts() as f64).log2().ceil().max(1.0) / 8.0;
        let logits = if plan.content.columns.logits { 4.0 * g.experts() as f64 } else { 0.0 };
        let layer = g.chosen() as f64 * (id + WEIGHT_BYTES) + 2.0 * SCORE_BYTES + logits;
        let output = plan.tokens() as f64 * (ROW_BYTES + layer * g.layers().len() as f64);
        Self {
            weight_bytes: memory.weights,
            activation_bytes: total.saturating_sub(memory.weights),
            output_bytes: output as u64,
        }
    }
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

/// Data sets, shards, memory and bytes.
pub(crate) fn plan(prepared: &Prepared, committed: usize, estimate: &Estimate) -> String {
    let plan = &prepared.plan;
    let mut table = table(&["data set", "rows", "usable", "asked for", "texts", "tokens", "cut", "shards"]);
    for (i, d) in plan.dataset_facts().iter().enumerate() {
        let shards = plan.shards.iter().filter(|s| s.dataset == i).count();
        table.add_row([
            d.name.clone(),
            thousands(d.rows_seen),
            thousands(d.usable),
            thousands(d.quota),
            thousands(d.samples),
            thousands(d.tokens),
            thousands(d.truncated),
            shards.to_string(),
        ]);
    }
    let mut out = format!("{table}\n\n");
    let m = &plan.model;
    let _ = writeln!(
        out,
        "model     {} ({}), {} parameters, {} per token, {} on the {}",
        m.name,
        m.family,
        thousands(m.total_parameters),
        thousands(m.active_parameters),
        m.precision,
        m.engine
    );
    let _ = writeln!(
        out,
        "work      {} texts, {} tokens in {} shards of at most {} tokens, {committed} of them committed",
        thousands(plan.samples() as u64),
        thousands(plan.tokens()),
        plan.shards.len(),
        thousands(plan.content.shard_tokens as u64)
    );
    let _ = writeln!(
        out,
        "memory    about {} of weights and {} for a pass of {} tokens",
        bytes(estimate.weight_bytes),
        bytes(estimate.activation_bytes),
        thousands(prepared.execution.tokens_per_pass as u64)
    );
    let _ = writeln!(
        out,
        "output    about {} in {}",
        bytes(estimate.output_bytes),
        prepared.folder.root().display()
    );
    let _ = writeln!(out, "plan      {}; nothing has been written", plan.hash());
    out
}
