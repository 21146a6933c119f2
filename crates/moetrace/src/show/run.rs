//! A run's heading, its end, its state and its provenance.

use std::fmt::Write as _;
use std::path::PathBuf;

use moetrace_corpus::CorpusPlan;
use moetrace_metrics::MetricsReport;
use moetrace_run::{Manifest, Outcome, ShardState, Status};
use moetrace_trace::TokenRow;
use serde_json::json;

use super::{bytes, counted, table, thousands, used_json, word};
use crate::prepare::Prepared;

/// What is about to run, in two lines.
pub(crate) fn heading(prepared: &Prepared) -> String {
    let plan = &prepared.plan;
    let (m, g) = (&plan.model, &plan.geometry);
    format!(
        "{}: {} routed layers, {} of {} experts per token, {} on the {} with {}\n\
         {} of {}, {} in {}, into {}",
        word(&m.name),
        g.layers().len(),
        g.chosen(),
        g.experts(),
        m.precision,
        word(&engine_on(prepared)),
        counted(prepared.execution.threads as u64, "thread"),
        counted(plan.samples() as u64, "text"),
        counted(plan.corpus.datasets.len() as u64, "data set"),
        counted(plan.tokens(), "token"),
        counted(plan.shards.len() as u64, "shard"),
        prepared.folder.root().display()
    )
}

/// `cpu`, or the GPU with what the run takes of it.
fn engine_on(prepared: &Prepared) -> String {
    let Some(gpu) = &prepared.gpu else { return prepared.plan.model.engine.clone() };
    let (facts, fit) = (&gpu.facts, &gpu.fit);
    let (memory, tokens) = (bytes(fit.memory.total()), thousands(fit.tokens_per_pass as u64));
    format!("GPU {} ({}; {memory} in passes of {tokens} tokens)", facts.ordinal, facts.name)
}

/// What did not become a sample, and why; empty if everything did.
pub(crate) fn left_out(corpus: &CorpusPlan) -> Vec<String> {
    let mut lines = Vec::new();
    for d in &corpus.datasets {
        if !d.skipped.is_empty() {
            lines.push(format!("{}: left out of {} rows: {}", d.name, thousands(d.rows_seen), d.skipped));
        }
        for row in &d.examples {
            lines.push(format!("  {row}"));
        }
        for note in &d.notes {
            lines.push(format!("{}: {note}", d.name));
        }
        let cut = d.samples.iter().filter(|s| s.truncated).count();
        if cut > 0 {
            lines.push(format!("{}: {} cut at the length limit", d.name, counted(cut as u64, "text")));
        }
    }
    lines.extend(fewer(corpus));
    lines.extend(nothing_asked(corpus));
    lines.extend(only_bos(corpus));
    lines
}

/// Data sets that a small quota leaves nothing for.
fn nothing_asked(corpus: &CorpusPlan) -> Option<String> {
    let none: Vec<&str> = corpus.datasets.iter().filter(|d| d.quota == 0).map(|d| &*d.name).collect();
    (!none.is_empty()).then(|| {
        format!("no text is taken of {}: --traces is less than the number of data sets", none.join(", "))
    })
}

/// Texts of which nothing is left but the token before them, which no number counts.
fn only_bos(corpus: &CorpusPlan) -> Option<String> {
    let samples: Vec<_> = corpus.datasets.iter().flat_map(|d| &d.samples).collect();
    let is_bos = |s: &&moetrace_corpus::Sample| s.begins_with_bos && s.tokens.len() == 1;
    let bare = samples.iter().copied().filter(is_bos).count();
    (bare > 0).then(|| {
        format!(
            "{} of {} hold their BOS token and nothing else, which is recorded but not counted; raise --max-length",
            thousands(bare as u64),
            counted(samples.len() as u64, "text")
        )
    })
}

/// Data sets that hold fewer texts than were asked for: no error, but not what was typed either.
fn fewer(corpus: &CorpusPlan) -> Option<String> {
    let short = corpus.datasets.iter().filter(|d| d.samples.len() < d.quota);
    let each: Vec<String> = short
        .map(|d| {
            let (held, quota) = (thousands(d.samples.len() as u64), thousands(d.quota as u64));
            format!("{} {held} of {quota}", d.name)
        })
        .collect();
    (!each.is_empty()).then(|| format!("all texts are taken, fewer than asked for: {}", each.join(", ")))
}

/// The end of a collect as JSON.
pub(crate) fn collected(out: &str, outcome: &Outcome, report: &MetricsReport) -> serde_json::Value {
    json!({
        "out": out,
        "shards": outcome.shards,
        "committed": outcome.committed,
        "written": outcome.written,
        "complete": outcome.complete,
        "bytes": outcome.bytes,
        "halved": outcome.halved,
        "usage": outcome.usage.as_ref().map(used_json),
        "metrics": report,
    })
}

/// The end of a collect, and what to type next.
pub(crate) fn collected_lines(out: &str, outcome: &Outcome, some: bool) -> String {
    let what = if some { "the chosen shards" } else { "the run" };
    let mut text = format!(
        "\n{} of {} shards committed, {} written now; {what}: {} in {out}\n",
        outcome.committed,
        outcome.shards,
        outcome.written,
        bytes(outcome.bytes)
    );
    let _ = write!(text, "{}", halved_shards(&outcome.halved));
    let next = if outcome.complete { "metrics" } else { "status" };
    let _ = writeln!(text, "next: {} {next} {}", quoted(&program()), quoted(out));
    text
}

/// A line on shards that began again with smaller passes, if there are any.
fn halved_shards(names: &[String]) -> String {
    if names.is_empty() {
        return String::new();
    }
    let shards = counted(names.len() as u64, "shard");
    format!("{shards} done again in smaller passes, as GPU memory had run out\n")
}

/// This program as it was called, so that what is to be typed next works: `moetrace` if it is on the path,
/// else its place, from the working folder if it lies below it.
pub(crate) fn program() -> String {
    let called = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    if called.components().count() < 2 {
        return "moetrace".into();
    }
    let here = std::env::current_dir().unwrap_or_default();
    called.strip_prefix(&here).unwrap_or(&called).display().to_string()
}

/// A path as a shell takes it.
pub(crate) fn quoted(path: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@%".contains(c);
    if path.chars().all(plain) { path.into() } else { format!("'{}'", path.replace('\'', r"'\''")) }
}

/// Each shard's state.
pub(crate) fn status(run: &str, status: &Status) -> String {
    let mut table = table(&["shard", "tokens", "state"]);
    for (name, tokens, state) in &status.shards {
        let state = match state {
            ShardState::Committed => "committed".into(),
            ShardState::Damaged(why) => format!("damaged: {why}"),
            ShardState::Writing(holder) => format!("being written by {holder}"),
            ShardState::Open => "open".into(),
        };
        table.add_row([word(name), thousands(*tokens), word(&state)]);
    }
    format!(
        "{table}\n\n{run}: {} of {} shards committed, {} of {} tokens, {}\n{}",
        status.committed,
        status.shards.len(),
        thousands(status.tokens),
        thousands(status.planned_tokens),
        bytes(status.bytes),
        halved_shards(&status.halved)
    )
}

/// Where a run came from.
pub(crate) fn provenance(manifest: &Manifest) -> String {
    let m = &manifest.model;
    let mut out = String::new();
    let _ = writeln!(
        out,
        "model      {} ({}){}",
        word(&m.name),
        word(&m.family),
        revision(m.revision.as_deref())
    );
    let _ = writeln!(out, "weights    blake3 {}", m.weights_hash);
    let _ = writeln!(out, "computed   {}, {}, router dtype {}", m.engine, m.precision, m.router_dtype);
    let g = &manifest.geometry;
    let layers = match (g.layers.first(), g.layers.last()) {
        (Some(first), Some(last)) => format!("{first} to {last}"),
        _ => "none".into(),
    };
    let _ = writeln!(
        out,
        "routing    {} of {} experts in {} layers ({layers})",
        g.chosen,
        g.experts,
        g.layers.len()
    );
    let _ = writeln!(out, "plan       {} (moetrace {})", manifest.plan_hash, manifest.moetrace);
    let mut table = table(&["data set", "texts", "tokens", "cut", "files"]);
    for d in &manifest.datasets {
        table.add_row([
            word(&d.name),
            thousands(d.samples),
            thousands(d.tokens),
            thousands(d.truncated),
            d.files.len().to_string(),
        ]);
    }
    format!("{out}\n{table}\n\n")
}

fn revision(revision: Option<&str>) -> String {
    revision.map(|r| format!(", revision {}", word(r))).unwrap_or_default()
}

/// The first rows of a shard: one line per token, its experts and weights in the first and last layer.
pub(crate) fn rows(rows: &[TokenRow]) -> String {
    let mut table = table(&["sample", "position", "token id", "layer", "experts", "weights", "margin"]);
    for row in rows {
        for (at, layer) in row.layers.iter().enumerate() {
            if at != 0 && at + 1 != row.layers.len() {
                continue;
            }
            let weights: Vec<String> = layer.weights.iter().flatten().map(|w| format!("{w:.3}")).collect();
            let experts: Vec<String> = layer.experts.iter().map(ToString::to_string).collect();
            table.add_row([
                row.sample_id.to_string(),
                row.position.to_string(),
                row.token_id.map_or("-".into(), |t| t.to_string()),
                layer.layer.to_string(),
                experts.join(" "),
                if weights.is_empty() { "-".into() } else { weights.join(" ") },
                layer.margin.map_or_else(|| "-".into(), |margin| format!("{margin:.4}")),
            ]);
        }
    }
    format!("{table}\n")
}
