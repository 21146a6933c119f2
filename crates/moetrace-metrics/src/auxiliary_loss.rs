//! The balance that training aims at: loads against the router's probabilities, which need recorded logits.

use moetrace_routing::{
    LayerIndex, Planes, RoutingGeometry, RoutingSink, RoutingView, SinkError, TokenBatch,
};
use serde::{Deserialize, Serialize};

use crate::{
    MetricsError, MetricsSettings, Spread, balance, entropy, fixed_sum::FixedSum, passes::Passes,
    report::spread,
};

/// Folds router logits into auxiliary losses; a [`RoutingSink`].
///
/// Totals of two parts [`merge`](Self::merge) into those of both; any split of the same samples, merged in any
/// order, gives the same [`report`](Self::report) to the last bit. After an error the totals hold part of a pass and
/// must be dropped.
#[derive(Debug, Clone)]
pub struct AuxiliaryLossMetrics {
    passes: Passes,
    layers: Vec<LayerTotals>,
    sample: Sample,
}

#[derive(Debug, Clone)]
struct LayerTotals {
    layer: LayerIndex,
    /// Tokens with logits.
    recorded: u64,
    /// `[E]`.
    loads: Vec<u64>,
    /// `[E]`.
    probabilities: Vec<FixedSum>,
    entropy: FixedSum,
    sequence_losses: FixedSum,
    sequences: u64,
}

/// The sample at hand, `[E]` each; reused.
#[derive(Debug, Clone)]
struct Sample {
    loads: Vec<u64>,
    probabilities: Vec<FixedSum>,
    softmax: Vec<f64>,
}

/// Auxiliary losses of a run or of a part of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuxiliaryLossReport {
    /// T, the tokens counted.
    pub tokens: u64,
    /// One for each MoE layer, ascending.
    pub layers: Vec<LayerAuxiliaryLoss>,
    /// Loss of the layers.
    pub loss: Spread,
    /// Sequence loss of the layers.
    pub sequence_loss: Spread,
}

/// One MoE layer. No loss holds the factor (alpha) that training multiplies it with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerAuxiliaryLoss {
    /// The model's own (absolute) number of the layer.
    pub layer: u16,
    /// `E sum over e of f_e P_e`, 1 if balanced; K times this is the scale of transformers, whose f sums to K.
    pub loss: f64,
    /// The same of each sample, averaged over samples, as `DeepSeek` trains (`seq_aux`).
    pub sequence_loss: f64,
    /// Mean over tokens of the router's probability of each expert, `[E]`.
    pub mean_probabilities: Vec<f64>,
    /// H(mean of p) - mean of H(p): how much the router's distribution depends on the token.
    pub token_information_bits: f64,
}

impl AuxiliaryLossMetrics {
    /// Nothing counted yet. The seed of the settings has no part in it.
    pub fn new(geometry: &RoutingGeometry, settings: &MetricsSettings) -> Self {
        let experts = geometry.experts();
        let totals = |&layer| LayerTotals {
            layer,
            recorded: 0,
            loads: vec![0; experts],
            probabilities: vec![FixedSum::default(); experts],
            entropy: FixedSum::default(),
            sequence_losses: FixedSum::default(),
            sequences: 0,
        };
        Self {
            passes: Passes::new(geometry, settings),
            layers: geometry.layers().iter().map(totals).collect(),
            sample: Sample {
                loads: vec![0; experts],
                probabilities: vec![FixedSum::default(); experts],
                softmax: vec![0.0; experts],
            },
        }
    }

    /// Adds the totals of another part of the run. On an error nothing has been added.
    ///
    /// # Errors
    /// [`MetricsError::GeometryMismatch`], [`MetricsError::SettingsMismatch`], or
    /// [`MetricsError::MergeInsidePass`] if either side has a pass open.
    pub fn merge(&mut self, other: &Self) -> Result<(), MetricsError> {
        self.passes.merge(&other.passes)?;
        for (ours, theirs) in self.layers.iter_mut().zip(&other.layers) {
            ours.recorded += theirs.recorded;
            ours.entropy.merge(theirs.entropy);
            ours.sequence_losses.merge(theirs.sequence_losses);
            ours.sequences += theirs.sequences;
            ours.loads.iter_mut().zip(&theirs.loads).for_each(|(a, b)| *a += b);
            ours.probabilities.iter_mut().zip(&theirs.probabilities).for_each(|(a, &b)| a.merge(b));
        }
        Ok(())
    }

    /// Every number, from the passes that have ended; `None` unless every counted token has logits in every layer.
    pub fn report(&self) -> Option<AuxiliaryLossReport> {
        let tokens = self.passes.tokens();
        if tokens == 0 || self.layers.iter().any(|layer| layer.recorded != tokens) {
            return None;
        }
        let layers: Vec<LayerAuxiliaryLoss> = self.layers.iter().map(|layer| layer.report(tokens)).collect();
        Some(AuxiliaryLossReport {
            tokens,
            loss: spread(layers.iter().map(|l| l.loss)),
            sequence_loss: spread(layers.iter().map(|l| l.sequence_loss)),
            layers,
        })
    }

    fn record_layer(&mut self, view: &RoutingView<'_>) -> Result<(), MetricsError> {
        let ordinal = self.passes.layer(view)?;
        let Some(logits) = view.logits() else { return Ok(()) };
        for span in self.passes.spans().iter().filter(|span| !span.rows.is_empty()) {
            let entropy = &mut self.layers[ordinal].entropy;
            self.sample.count(view, logits, span.rows.clone(), entropy);
            self.layers[ordinal].add(&self.sample, span.rows.len() as u64);
        }
        Ok(())
    }
}

impl Sample {
    fn count(
        &mut self,
        view: &RoutingView<'_>,
        logits: &[f32],
        rows: std::ops::Range<usize>,
        bits: &mut FixedSum,
    ) {
        let (experts, k) = (self.loads.len(), view.chosen());
        self.loads.fill(0);
        self.probabilities.fill(FixedSum::default());
        for row in rows {
            view.experts()[row * k..][..k].iter().for_each(|id| self.loads[id.index()] += 1);
            let logits = &logits[row * experts..][..experts];
            let most = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            self.softmax.iter_mut().zip(logits).for_each(|(p, &logit)| *p = (f64::from(logit) - most).exp());
            let sum: f64 = self.softmax.iter().sum();
            let mut entropy = 0.0;
            for (p, total) in self.softmax.iter_mut().zip(&mut self.probabilities) {
                *p /= sum;
                total.add(*p);
                entropy -= if *p > 0.0 { *p * p.log2() } else { 0.0 };
            }
            bits.add(entropy.max(0.0));
        }
    }
}

impl LayerTotals {
    fn add(&mut self, sample: &Sample, tokens: u64) {
        let means: Vec<f64> = sample.probabilities.iter().map(|sum| sum.mean(tokens)).collect();
        self.recorded += tokens;
        self.sequences += 1;
        self.sequence_losses.add(balance::auxiliary_loss(&sample.loads, &means));
        self.loads.iter_mut().zip(&sample.loads).for_each(|(a, b)| *a += b);
        self.probabilities.iter_mut().zip(&sample.probabilities).for_each(|(a, &b)| a.merge(b));
    }

    fn report(&self, tokens: u64) -> LayerAuxiliaryLoss {
        let mean_probabilities: Vec<f64> = self.probabilities.iter().map(|sum| sum.mean(tokens)).collect();
        let entropy_of_mean = entropy::of_probabilities(&mean_probabilities);
        LayerAuxiliaryLoss {
            layer: self.layer.0,
            loss: balance::auxiliary_loss(&self.loads, &mean_probabilities),
            sequence_loss: self.sequence_losses.mean(self.sequences),
            token_information_bits: (entropy_of_mean - self.entropy.mean(tokens)).max(0.0),
            mean_probabilities,
        }
    }
}

impl RoutingSink for AuxiliaryLossMetrics {
    fn wants(&self) -> Planes {
        Planes { logits: true, ..Planes::default() }
    }
    fn begin(&mut self, batch: &TokenBatch) -> Result<(), SinkError> {
        self.passes.begin(batch).map_err(SinkError::new)
    }
    fn record(&mut self, view: &RoutingView<'_>) -> Result<(), SinkError> {
        self.record_layer(view).map_err(SinkError::new)
    }
    fn end(&mut self) -> Result<(), SinkError> {
        self.passes.end().map_err(SinkError::new)
    }
}
