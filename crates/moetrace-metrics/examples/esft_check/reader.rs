//! Reads expert records as ESFT writes them and plays them into a routing sink.
//!
//! A folder holds one text file for each MoE layer and a summary:
//! `expert_weights_LAYER.txt`: one line for each text; the ids of all its tokens, K a token, separated by tabs; two
//! tabs; as many weights, separated by tabs. The K ids of a token stand in no particular order.
//! `summary.json`: `token_scores` and `gate_scores`, each layer -> expert -> number, rounded to four decimals.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, ensure};
use moetrace_metrics::MetricsReport;
use moetrace_routing::{
    ExpertId, LayerIndex, RoutingGeometry, RoutingPlanes, RoutingSink, RoutingView, SampleId, Span,
    TokenBatch, TokenId,
};
use serde::Deserialize;

/// layer -> expert -> score
type Scores = BTreeMap<u16, BTreeMap<u16, f64>>;

#[derive(Debug, Deserialize)]
pub(crate) struct Summary {
    pub(crate) token_scores: Scores,
    pub(crate) gate_scores: Scores,
}

/// One folder, read whole.
#[derive(Debug)]
pub(crate) struct EsftRun {
    pub(crate) geometry: RoutingGeometry,
    pub(crate) summary: Summary,
    pub(crate) files: usize,
    name: String,
    /// Tokens of each text.
    lengths: Vec<usize>,
    layers: Vec<LayerRecord>,
}

/// `[N, K]` each, in rank order.
#[derive(Debug, Default)]
struct LayerRecord {
    experts: Vec<ExpertId>,
    weights: Vec<f32>,
}

impl EsftRun {
    /// `chosen` is K, which the files do not say.
    pub(crate) fn read(folder: &Path, chosen: usize) -> Result<Self> {
        let path = folder.join("summary.json");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let summary: Summary = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        let experts = summary.token_scores.values().filter_map(|layer| layer.keys().max()).max();
        let experts = usize::from(*experts.ok_or_else(|| anyhow!("{}: no expert", path.display()))?) + 1;
        let numbers: Vec<u16> = summary.token_scores.keys().copied().collect();
        // The width of the router's input is not recorded and changes no number.
        let geometry =
            RoutingGeometry::new(experts, chosen, 1, numbers.iter().map(|&n| LayerIndex(n)).collect())?;
        let mut lengths = None;
        let mut layers = Vec::new();
        for number in numbers {
            let path: PathBuf = folder.join(format!("expert_weights_{number}.txt"));
            let (layer, found) = read_layer(&path, chosen).with_context(|| path.display().to_string())?;
            let expected = lengths.get_or_insert_with(|| found.clone());
            ensure!(*expected == found, "{}: texts of other lengths than in the first layer", path.display());
            layers.push(layer);
        }
        let name = folder.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let files = layers.len();
        Ok(Self { geometry, summary, files, name, lengths: lengths.unwrap_or_default(), layers })
    }

    pub(crate) fn tokens(&self) -> usize {
        self.lengths.iter().sum()
    }

    pub(crate) fn samples(&self) -> usize {
        self.lengths.len()
    }

    /// Plays the run, one text a pass. The summaries count every token, so no row is called a BOS row. Margin and
    /// gate entropy are not recorded.
    pub(crate) fn play(&self, sink: &mut dyn RoutingSink) -> Result<()> {
        let k = self.geometry.chosen();
        let mut first = 0;
        for (sample, &len) in self.lengths.iter().enumerate() {
            let span = Span {
                sample: SampleId(u32::try_from(sample)?),
                dataset: self.name.as_str().into(),
                label: None,
                start: 0,
                len,
                begins_with_bos: false,
            };
            let positions = (0..u32::try_from(len)?).collect();
            sink.begin(&TokenBatch::new(vec![TokenId(0); len], positions, vec![span])?)?;
            for (ordinal, layer) in self.geometry.ordinals().zip(&self.layers) {
                let slots = first * k..(first + len) * k;
                let planes = RoutingPlanes {
                    experts: &layer.experts[slots.clone()],
                    weights: Some(&layer.weights[slots]),
                    ..RoutingPlanes::default()
                };
                sink.record(&RoutingView::new(&self.geometry, ordinal, len, planes)?)?;
            }
            sink.end()?;
            first += len;
        }
        Ok(())
    }

    /// The largest distance between the report and the summary: of token ratios, of gate scores.
    pub(crate) fn worst_deviation(&self, report: &MetricsReport) -> Result<(f64, f64)> {
        let mut worst = (0f64, 0f64);
        for layer in &report.layers {
            let gate_score = layer.esft.gate_score.as_ref().context("no weights")?;
            for (ours, theirs, worst) in [
                (&layer.esft.token_ratio, &self.summary.token_scores, &mut worst.0),
                (gate_score, &self.summary.gate_scores, &mut worst.1),
            ] {
                let theirs = theirs.get(&layer.layer).ok_or_else(|| anyhow!("no layer {}", layer.layer))?;
                for (expert, ours) in (0u16..).zip(ours) {
                    *worst = worst.max((ours - theirs.get(&expert).copied().unwrap_or(0.0)).abs());
                }
            }
        }
        Ok(worst)
    }
}

fn read_layer(path: &Path, chosen: usize) -> Result<(LayerRecord, Vec<usize>)> {
    let (mut layer, mut lengths) = (LayerRecord::default(), Vec::new());
    for (line, text) in fs::read_to_string(path)?.lines().enumerate().filter(|(_, text)| !text.is_empty()) {
        let slots = read_text(text).with_context(|| format!("line {}", line + 1))?;
        ensure!(
            slots.len() % chosen == 0,
            "line {}: {} ids, expected a multiple of {chosen}",
            line + 1,
            slots.len()
        );
        lengths.push(slots.len() / chosen);
        for token in slots.chunks_exact(chosen) {
            // Rank order: falling weights, ties to the lower id.
            let mut ranked = token.to_vec();
            ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            layer.experts.extend(ranked.iter().map(|&(id, _)| id));
            layer.weights.extend(ranked.iter().map(|&(_, weight)| weight));
        }
    }
    Ok((layer, lengths))
}

/// One text's (expert, weight) slots, `[N, K]`.
fn read_text(text: &str) -> Result<Vec<(ExpertId, f32)>> {
    let (ids, weights) = text.split_once("\t\t").context("no two tabs between ids and weights")?;
    let ids: Vec<u16> = ids.split('\t').map(str::parse).collect::<Result<_, _>>()?;
    let weights: Vec<f32> = weights.split('\t').map(str::parse).collect::<Result<_, _>>()?;
    ensure!(ids.len() == weights.len(), "{} ids and {} weights", ids.len(), weights.len());
    Ok(ids.into_iter().map(ExpertId).zip(weights).collect())
}
