//! Checks the ESFT scores of this crate against a published run.
//!
//! `cargo run --example esft_check -- FOLDER...`, each folder as in `esft_check/reader.rs`. Prints one line for each
//! and fails if any score is further than 5e-5 from the summary, which is rounded to four decimals.

#[path = "esft_check/reader.rs"]
mod reader;

use std::path::PathBuf;

use anyhow::{Result, ensure};
use moetrace_metrics::{MetricsSettings, RoutingMetrics};

/// Half a unit of the summaries' fourth decimal.
const TOLERANCE: f64 = 5e-5;

/// DeepSeek-MoE-16B and ESFT's models choose six experts.
const CHOSEN: usize = 6;

fn main() -> Result<()> {
    let folders: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    ensure!(!folders.is_empty(), "name one or more folders that hold summary.json and expert_weights_*.txt");
    for folder in folders {
        let run = reader::EsftRun::read(&folder, CHOSEN)?;
        let mut metrics = RoutingMetrics::new(&run.geometry, &MetricsSettings::default());
        run.play(&mut metrics)?;
        let report = metrics.report();
        ensure!(report.tokens == run.tokens() as u64, "{} of {} tokens counted", report.tokens, run.tokens());
        let (token_ratio, gate_score) = run.worst_deviation(&report)?;
        println!(
            "{}: {} texts, {} tokens, {} layer files; worst deviation: token ratio {token_ratio:.4e}, gate score \
             {gate_score:.4e}",
            folder.display(),
            run.samples(),
            run.tokens(),
            run.files
        );
        ensure!(token_ratio.max(gate_score) <= TOLERANCE, "further than {TOLERANCE:e} from the summary");
    }
    Ok(())
}
