//! What a collect would do, and what that needs.

use std::fmt::Write as _;
use std::path::Path;

use moetrace_model::{ComputeDtype, CpuEngine, CpuSettings, ModelConfig, ModelError};
use moetrace_routing::{RoutingGeometry, WeightPrecision};
use moetrace_run::{ContentSettings, ResolvedSetting, Shard};
use serde::Serialize;
use serde_json::{Value, json};

use super::placement::gpu_lines;
use super::{bytes, processor, table, thousands, word};
use crate::device::HostMemory;
use crate::model_plan::ModelPlan;
use crate::on_gpu::OnGpu;
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
        let Prepared { config, cpu, gpu, .. } = prepared;
        let pass = (tokens.min(largest), longest as u64);
        let rows = Rows::new(config.geometry(), &plan.content, plan.model.compute_dtype == "f32");
        let hidden = |shard: &Shard| shard.tokens.min(plan.content.hidden_rows as u64);
        let counts = Counts {
            tokens: shards.iter().map(|s| s.tokens).sum(),
            samples: shards.iter().map(|s| s.samples as u64).sum(),
            files: shards.len() as u64,
            hidden: shards.iter().map(hidden).sum(),
        };
        Self::of((config, cpu, gpu.as_ref()), pass, &plan.content, rows.bytes(&counts))
    }

    /// The most that a run can take whose texts are not known: as many as are asked for, each of full length.
    pub(crate) fn at_most(model: &ModelPlan) -> Result<Self, ModelError> {
        let ModelPlan { config, cpu, gpu, content, .. } = model;
        let exact = cpu.compute_dtype()? == ComputeDtype::F32;
        let samples = content.traces as u64;
        let tokens = samples.saturating_mul(content.max_length as u64);
        // A shard is full but for the last one of each data set, which is a file as any other.
        let files = tokens.div_ceil(content.shard_tokens as u64) + 1;
        let hidden = tokens.min(files.saturating_mul(content.hidden_rows as u64));
        let counts = Counts { tokens, samples, files, hidden };
        let bytes = Rows::new(config.geometry(), content, exact).bytes(&counts);
        let longest = content.max_length;
        let pass = (model.execution.tokens_per_pass.max(longest) as u64, longest as u64);
        Ok(Self::of((config, cpu, gpu.as_ref()), pass, content, bytes))
    }

    /// For passes of so many tokens and a longest text of so many.
    fn of(
        (config, cpu, gpu): (&ModelConfig, &CpuSettings, Option<&OnGpu>),
        (tokens, longest): (u64, u64),
        content: &ContentSettings,
        output: f64,
    ) -> Self {
        let output_bytes = output as u64;
        if let Some(gpu) = gpu {
            let memory = gpu.fit.memory;
            // What takes turns is weights too.
            let weight_bytes = memory.weights.saturating_add(memory.slots);
            return Self { weight_bytes, activation_bytes: memory.buffers, output_bytes };
        }
        let memory = CpuEngine::memory_estimate(config, cpu);
        let total = memory.total(tokens, longest, content.columns.nll);
        Self {
            weight_bytes: memory.weights,
            activation_bytes: total.saturating_sub(memory.weights),
            output_bytes,
        }
    }
}

/// What the Parquet files of shards hold.
struct Counts {
    tokens: u64,
    samples: u64,
    files: u64,
    /// Rows whose hidden states are kept.
    hidden: u64,
}

/// Bytes of rows, texts and files, by what is recorded.
struct Rows {
    row: f64,
    file: f64,
    hidden: f64,
}

impl Rows {
    /// `exact` where nothing is rounded to 16 bits.
    fn new(g: &RoutingGeometry, content: &ContentSettings, exact: bool) -> Self {
        let columns = &content.columns;
        let (layers, chosen, experts) = (g.layers().len() as f64, g.chosen() as f64, g.experts() as f64);
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
        Self { row, file, hidden: layers * g.hidden() as f64 * value.hidden }
    }

    /// Bytes of all files.
    fn bytes(&self, counts: &Counts) -> f64 {
        counts.tokens as f64 * self.row
            + counts.samples as f64 * TEXT_ROW
            + counts.files as f64 * self.file
            + counts.hidden as f64 * self.hidden
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

fn processor_memory(estimate: &Estimate, tokens: usize) -> String {
    let available = HostMemory::read(Path::new("/")).available;
    let host =
        if available == u64::MAX { String::new() } else { format!("; {} can be had", bytes(available)) };
    format!(
        "memory    about {} of weights and {} for a pass of {} tokens{host}\n",
        bytes(estimate.weight_bytes),
        bytes(estimate.activation_bytes),
        thousands(tokens as u64)
    )
}

/// Which model, how large, and what computes it how.
fn model_line((name, family): (&str, &str), (total, active): (u64, u64), how: (&str, &str)) -> String {
    let (precision, engine) = how;
    format!(
        "model     {} ({family}), {} parameters, {} per token, {precision} on the {}\n",
        word(name),
        thousands(total),
        thousands(active),
        processor(engine)
    )
}

/// The lines of a plan that need no texts: model, memory, and the most that is written.
pub(crate) fn model_plan(name: &str, model: &ModelPlan, estimate: &Estimate) -> String {
    let ModelPlan { config, cpu, gpu, content, .. } = model;
    let parameters = (config.total_parameters(), config.active_parameters());
    let how = (cpu.precision.to_string(), model.engine());
    let mut out = model_line((name, &config.family().to_string()), parameters, (how.0.as_str(), how.1));
    out.push_str(&match gpu {
        Some(gpu) => gpu_lines(gpu, None),
        None => processor_memory(estimate, model.execution.tokens_per_pass),
    });
    let _ = writeln!(
        out,
        "output    at most {} in {}: {} texts of {} tokens",
        bytes(estimate.output_bytes),
        model.folder.root().display(),
        thousands(content.traces as u64),
        thousands(content.max_length as u64)
    );
    out
}

/// What a plan says of the model before its files are here, for machines.
pub(crate) fn model_json(name: &str, model: &ModelPlan) -> Result<Value, ModelError> {
    let ModelPlan { config, cpu, .. } = model;
    Ok(json!({
        "name": name,
        "family": config.family().to_string(),
        "total_parameters": config.total_parameters(),
        "active_parameters": config.active_parameters(),
        "engine": model.engine(),
        "precision": cpu.precision.to_string(),
        "compute_dtype": cpu.compute_dtype()?.to_string(),
        "router_dtype": cpu.router_dtype.to_string(),
    }))
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
    let parameters = (prepared.config.total_parameters(), prepared.config.active_parameters());
    out.push_str(&model_line((&m.name, &m.family), parameters, (&m.precision, &m.engine)));
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
        Some(gpu) => gpu_lines(gpu, Some(tokens)),
        None => processor_memory(estimate, prepared.execution.tokens_per_pass),
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
