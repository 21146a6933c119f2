//! The integers that everything is computed from.

use moetrace_routing::{ExpertId, LayerIndex, Name, RoutingGeometry, RoutingView};

use crate::{
    MetricsError, entropy,
    esft::ScoreSums,
    fixed_sum::{FixedSum, LARGEST_TERM},
    pairs::PairCounts,
};

/// Tokens of a layer that have what other tools leave out. A number over all tokens is known only if all have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Recorded {
    pub(crate) weights: u64,
    pub(crate) margins: u64,
    pub(crate) gate_entropy: u64,
}

impl Recorded {
    fn merge(&mut self, other: Self) {
        self.weights += other.weights;
        self.margins += other.margins;
        self.gate_entropy += other.gate_entropy;
    }

    fn count(&mut self, view: &RoutingView<'_>, rows: u64) {
        let of = |is_there: bool| if is_there { rows } else { 0 };
        self.merge(Self {
            weights: of(view.weights().is_some()),
            margins: of(view.margins().is_some()),
            gate_entropy: of(view.gate_entropy().is_some()),
        });
    }
}

/// What is counted over all data sets in one layer.
#[derive(Debug, Clone)]
pub(crate) struct LayerTotals {
    pub(crate) layer: LayerIndex,
    pub(crate) tokens: u64,
    /// Samples with a token that counts, and how many of them chose each expert at all, `[E]`.
    pub(crate) samples: u64,
    pub(crate) samples_with: Vec<u64>,
    pub(crate) recorded: Recorded,
    pub(crate) ties: u64,
    pub(crate) gate_entropy: FixedSum,
    pub(crate) chosen_entropy: FixedSum,
    /// Tokens whose chosen weights are all 0: they have no chosen entropy.
    pub(crate) weightless_tokens: u64,
    pub(crate) pairs: PairCounts,
    pub(crate) scores: ScoreSums,
}

impl LayerTotals {
    pub(crate) fn new(layer: LayerIndex, experts: usize) -> Self {
        Self {
            layer,
            tokens: 0,
            samples: 0,
            samples_with: vec![0; experts],
            recorded: Recorded::default(),
            ties: 0,
            gate_entropy: FixedSum::default(),
            chosen_entropy: FixedSum::default(),
            weightless_tokens: 0,
            pairs: PairCounts::new(experts),
            scores: ScoreSums::new(experts),
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.tokens += other.tokens;
        self.samples += other.samples;
        self.samples_with.iter_mut().zip(&other.samples_with).for_each(|(a, b)| *a += b);
        self.recorded.merge(other.recorded);
        self.ties += other.ties;
        self.gate_entropy.merge(other.gate_entropy);
        self.chosen_entropy.merge(other.chosen_entropy);
        self.weightless_tokens += other.weightless_tokens;
        self.pairs.merge(&other.pairs);
        self.scores.merge(&other.scores);
    }
}

/// What is counted for one data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DatasetTotals {
    pub(crate) name: Name,
    pub(crate) samples: u64,
    pub(crate) tokens: u64,
    pub(crate) bos_excluded: u64,
    /// How often each expert was chosen, `[L, E]`.
    pub(crate) loads: Vec<u64>,
}

impl DatasetTotals {
    pub(crate) fn new(name: Name, geometry: &RoutingGeometry) -> Self {
        let slots = geometry.layers().len() * geometry.experts();
        Self { name, samples: 0, tokens: 0, bos_excluded: 0, loads: vec![0; slots] }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.samples += other.samples;
        self.tokens += other.tokens;
        self.bos_excluded += other.bos_excluded;
        self.loads.iter_mut().zip(&other.loads).for_each(|(a, b)| *a += b);
    }
}

/// One sample in one layer, counted before it is added to everything that wants it; reused.
#[derive(Debug, Clone)]
pub(super) struct SampleCounts {
    /// How often each expert was chosen, `[E]`.
    pub(super) experts: Vec<u32>,
    /// Sum of each expert's weights, `[E]`.
    pub(super) weights: Vec<FixedSum>,
}

impl SampleCounts {
    pub(super) fn new(experts: usize) -> Self {
        Self { experts: vec![0; experts], weights: vec![FixedSum::default(); experts] }
    }

    /// Counts `rows` of `view` here and, where samples do not matter, in `layer`. Sets `tied` at rows with a tie.
    pub(super) fn count(
        &mut self,
        view: &RoutingView<'_>,
        rows: std::ops::Range<usize>,
        layer: &mut LayerTotals,
        tied: &mut [bool],
    ) -> Result<(), MetricsError> {
        self.experts.fill(0);
        self.weights.fill(FixedSum::default());
        let k = view.chosen();
        // Where all experts are chosen there is no boundary that two of them could tie at.
        let boundary = k < self.experts.len();
        layer.tokens += rows.len() as u64;
        layer.recorded.count(view, rows.len() as u64);
        // The order of calls was checked before, and with it that every id is below E.
        let chosen = &view.experts()[rows.start * k..rows.end * k];
        for id in chosen {
            self.experts[id.index()] += 1;
        }
        layer.pairs.add(chosen, k);
        for row in rows {
            let ids = &view.experts()[row * k..][..k];
            if let Some(weights) = view.weights() {
                let weights = &weights[row * k..][..k];
                self.add_weights(view.layer(), row, ids, weights)?;
                match entropy::of_weights(weights) {
                    Some(bits) => layer.chosen_entropy.add(bits),
                    None => layer.weightless_tokens += 1,
                }
            }
            if let Some(gate_entropy) = view.gate_entropy().map(|all| all[row]) {
                check_term(view.layer(), row, "gate entropy", gate_entropy)?;
                layer.gate_entropy.add(f64::from(gate_entropy));
            }
            if boundary && view.margins().is_some_and(|all| all[row] == 0.0) {
                layer.ties += 1;
                tied[row] = true;
            }
        }
        Ok(())
    }

    #[inline]
    fn add_weights(
        &mut self,
        layer: LayerIndex,
        row: usize,
        ids: &[ExpertId],
        weights: &[f32],
    ) -> Result<(), MetricsError> {
        // Weights do not rise with the rank: the first stands for all.
        check_term(layer, row, "weight", weights[0])?;
        for (id, &weight) in ids.iter().zip(weights) {
            self.weights[id.index()].add(f64::from(weight));
        }
        Ok(())
    }
}

#[inline]
fn check_term(layer: LayerIndex, row: usize, plane: &'static str, found: f32) -> Result<(), MetricsError> {
    if found <= LARGEST_TERM {
        Ok(())
    } else {
        Err(MetricsError::TooLarge { layer, row, plane, found, limit: LARGEST_TERM })
    }
}
