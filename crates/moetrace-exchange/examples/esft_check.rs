//! Imports published ESFT runs and compares their scores with the summaries that were published beside them.
//!
//! `cargo run --release -p moetrace-exchange --example esft_check -- FOLDER...`, each with `expert_weights_LAYER.txt` and
//! `summary.json`. Prints one line for each and fails if a score is further than 5e-5 from the summary, which is rounded
//! to four decimals.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use anyhow::{Context as _, Result, ensure};
use moetrace_exchange::{ImportHow, ImportLayout, ImportSettings, import};
use moetrace_metrics::MetricsReport;
use moetrace_routing::WeightPrecision;
use moetrace_run::{RunFolder, verify};
use serde::Deserialize;

/// Half a unit of the summaries' fourth decimal.
const TOLERANCE: f64 = 5e-5;

/// DeepSeek-MoE-16B and ESFT's models choose six experts.
const CHOSEN: usize = 6;

/// layer -> expert -> score
type Scores = BTreeMap<u16, BTreeMap<u16, f64>>;

#[derive(Debug, Deserialize)]
struct Summary {
    token_scores: Scores,
    gate_scores: Scores,
}

fn main() -> Result<()> {
    let folders: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    ensure!(!folders.is_empty(), "name one or more folders that hold summary.json and expert_weights_*.txt");
    for folder in folders {
        check(&folder).with_context(|| folder.display().to_string())?;
    }
    Ok(())
}

fn check(folder: &Path) -> Result<()> {
    let out = tempfile::tempdir()?;
    let run = RunFolder::new(out.path().join("run"));
    let settings = ImportSettings {
        layout: ImportLayout::Esft,
        sources: vec![("esft".to_owned(), folder.to_owned())],
        model: "esft".to_owned(),
        experts: None,
        chosen: Some(CHOSEN),
        layers: None,
        text_tokens: None,
        weights: WeightPrecision::Full,
        shard_tokens: 4_096,
    };
    let how = ImportHow {
        threads: 1,
        settings: Vec::new(),
        holder: "esft_check",
        stop: &AtomicBool::new(false),
        repair: false,
        set_aside: None,
    };
    let report = import(&settings, &run, how, &mut |_| {})?.metrics.report();
    let faults = verify(&run)?.faults;
    ensure!(faults.is_empty(), "the imported run is faulty: {faults:?}");
    let summary: Summary = serde_json::from_slice(&std::fs::read(folder.join("summary.json"))?)?;
    let (token_ratio, gate_score) = worst_deviation(&report, &summary)?;
    println!(
        "{}: {} texts, {} tokens, {} layers; worst deviation: token ratio {token_ratio:.4e}, gate score {gate_score:.4e}",
        folder.display(),
        report.samples,
        report.tokens,
        report.layers.len()
    );
    ensure!(token_ratio.max(gate_score) <= TOLERANCE, "further than {TOLERANCE:e} from the summary");
    Ok(())
}

/// The largest distance between the report and the summary: of token ratios, of gate scores.
fn worst_deviation(report: &MetricsReport, summary: &Summary) -> Result<(f64, f64)> {
    let mut worst = (0f64, 0f64);
    for layer in &report.layers {
        let gate_score = layer.esft.gate_score.as_ref().context("no weights")?;
        for (ours, theirs, worst) in [
            (&layer.esft.token_ratio, &summary.token_scores, &mut worst.0),
            (gate_score, &summary.gate_scores, &mut worst.1),
        ] {
            let theirs = theirs.get(&layer.layer).with_context(|| format!("no layer {}", layer.layer))?;
            for (expert, ours) in (0u16..).zip(ours) {
                *worst = worst.max((ours - theirs.get(&expert).copied().unwrap_or(0.0)).abs());
            }
        }
    }
    Ok(worst)
}
