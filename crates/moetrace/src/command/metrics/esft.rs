//! `--esft`: which experts ESFT (arXiv 2407.01906) would train for the texts of a run.

use std::path::Path;

use moetrace_metrics::{EsftScores, esft::ExpertConfig};

use super::count;
use crate::args::{EsftScoreArg, MetricsArgs};
use crate::failure::{Failure, code};
use crate::output;

/// Prints the configuration, from scores pooled over all tokens as ESFT's published summaries are.
pub(super) fn esft(args: &MetricsArgs, run: &Path, part: f64) -> Result<u8, Failure> {
    let (_, _, report) = count(args, run)?;
    let scores = |scores: &EsftScores| match args.esft_score {
        EsftScoreArg::Gate => scores.gate_score.clone(),
        EsftScoreArg::Token => Some(scores.token_ratio.clone()),
    };
    let layers: Option<Vec<(u16, Vec<f64>)>> =
        report.core.layers.iter().map(|layer| Some((layer.layer, scores(&layer.esft)?))).collect();
    let Some(layers) = layers else {
        let what = format!("{} has no weights, and the gate score is their mean", run.display());
        return Err(Failure::new(code::BAD_INPUT, "E-METRIC", what, "--esft-score token needs none"));
    };
    let layers = layers.iter().map(|(layer, scores)| (*layer, scores.as_slice()));
    output::print_json(&ExpertConfig::new(layers, part))?;
    Ok(0)
}
