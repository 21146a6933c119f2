//! From totals to numbers: calls the formulas, holds none.

use moetrace_routing::RoutingGeometry;

use super::{
    CoverageCurve, CurvePoint, DatasetLayerReport, DatasetReport, EsftScores, ExpertsAtLeast, GuideView,
    LayerReport, LoadShape, MetricsReport, OverallReport, Specialisation, Spread,
};
use crate::{
    MetricsSettings, balance, coverage,
    domain::{self, LabelledSample, PermutationNull},
    entropy, esft,
    groups::top_experts,
    pairs,
    routing_metrics::{DatasetTotals, LayerTotals},
};

/// How many experts of a data set are named.
const TOP_EXPERTS: usize = 5;

/// Loads below which an expert may be called unused.
const EXPERTS_AT_LEAST: [u64; 4] = [1, 10, 100, 1000];

/// Everything the report is made of.
pub(crate) struct Totals<'a> {
    pub(crate) geometry: &'a RoutingGeometry,
    pub(crate) settings: MetricsSettings,
    pub(crate) rows_with_tie: u64,
    pub(crate) layers: &'a [LayerTotals],
    pub(crate) datasets: &'a [DatasetTotals],
    pub(crate) subset_tokens: u64,
    pub(crate) subset: Vec<LabelledSample<'a>>,
}

impl Totals<'_> {
    /// How often each data set chose each expert of one layer, `[datasets, E]`.
    fn joint(&self, ordinal: usize) -> Vec<u64> {
        let e = self.geometry.experts();
        self.datasets.iter().flat_map(|d| &d.loads[ordinal * e..][..e]).copied().collect()
    }

    /// Tokens that chose each expert of one layer, `[E]`.
    pub(super) fn loads(&self, ordinal: usize) -> Vec<u64> {
        add_up(self.geometry.experts(), self.joint(ordinal).chunks_exact(self.geometry.experts()))
    }

    fn samples(&self) -> u64 {
        self.datasets.iter().map(|d| d.samples).sum()
    }
}

fn add_up<'a>(experts: usize, rows: impl Iterator<Item = &'a [u64]>) -> Vec<u64> {
    rows.fold(vec![0; experts], |mut sums, row| {
        sums.iter_mut().zip(row).for_each(|(sum, n)| *sum += n);
        sums
    })
}

pub(crate) fn build(totals: &Totals<'_>) -> MetricsReport {
    let nulls = nulls(totals);
    let layers: Vec<LayerReport> =
        (0..totals.layers.len()).map(|ordinal| layer(totals, ordinal, nulls.get(ordinal))).collect();
    MetricsReport {
        experts: totals.geometry.experts(),
        chosen: totals.geometry.chosen(),
        tokens: totals.datasets.iter().map(|d| d.tokens).sum(),
        samples: totals.samples(),
        include_bos: totals.settings.include_bos,
        bos_excluded: totals.datasets.iter().map(|d| d.bos_excluded).sum(),
        rows_with_tie: totals
            .layers
            .iter()
            .all(|layer| layer.recorded.margins == layer.tokens)
            .then_some(totals.rows_with_tie),
        overall: overall(totals.geometry.experts(), &layers),
        guide: guide(totals, &layers),
        datasets: totals.datasets.iter().map(|d| dataset(totals, d, &layers)).collect(),
        layers,
    }
}

/// One for each layer, or none at all where there are not two data sets to tell apart.
fn nulls(totals: &Totals<'_>) -> Vec<PermutationNull> {
    if totals.datasets.iter().filter(|d| d.tokens > 0).count() < 2 {
        return Vec::new();
    }
    let (layers, experts) = (totals.layers.len(), totals.geometry.experts());
    let one_stratum = vec![0; totals.datasets.len()];
    domain::permutation_null(&totals.subset, &one_stratum, layers, experts, totals.settings.seed)
}

fn layer(totals: &Totals<'_>, ordinal: usize, null: Option<&PermutationNull>) -> LayerReport {
    let (e, k) = (totals.geometry.experts(), totals.geometry.chosen());
    let sums = &totals.layers[ordinal];
    let loads = totals.loads(ordinal);
    let active_experts = coverage::active(&loads);
    let load_entropy_bits = entropy::of_counts(&loads);
    let weighted = sums.recorded.weights == sums.tokens;
    let has_gate_entropy = sums.recorded.gate_entropy == sums.tokens;
    let gate_entropy_bits = has_gate_entropy.then(|| sums.gate_entropy.mean(sums.tokens));
    let chosen_entropy_bits =
        weighted.then(|| sums.chosen_entropy.mean(sums.tokens - sums.weightless_tokens));
    LayerReport {
        layer: sums.layer.0,
        active_experts,
        coverage: coverage::fraction(active_experts, e as u64),
        expected_active_experts: coverage::expected_experts(e, k, sums.tokens),
        min: loads.iter().min().copied().unwrap_or(0),
        max: loads.iter().max().copied().unwrap_or(0),
        load_entropy_bits,
        load_entropy_normalised: entropy::normalised(load_entropy_bits, e),
        gate_entropy_bits,
        gate_entropy_normalised: gate_entropy_bits.map(|bits| entropy::normalised(bits, e)),
        chosen_entropy_bits,
        chosen_entropy_normalised: chosen_entropy_bits.map(|bits| entropy::normalised(bits, k)),
        weightless_tokens: weighted.then_some(sums.weightless_tokens),
        effective_experts: if sums.tokens == 0 { 0.0 } else { entropy::effective_experts(load_entropy_bits) },
        unique_pairs: sums.pairs.unique(),
        possible_pairs: pairs::possible(e),
        expected_unique_pairs: coverage::expected_pairs(e, k, sums.tokens),
        max_vio: balance::max_vio(&loads),
        cv: balance::coefficient_of_variation(&loads),
        gini: balance::gini(&loads),
        load_entropy_bias_bits: entropy::miller_madow_bits(&loads),
        load_shape: load_shape(&loads, k),
        experts_at_least: EXPERTS_AT_LEAST
            .map(|tokens| ExpertsAtLeast { tokens, experts: coverage::at_least(&loads, tokens) })
            .to_vec(),
        coverage_curve: CoverageCurve {
            tokens: curve(&loads, sums.tokens),
            samples: curve(&sums.samples_with, sums.samples),
        },
        ties: (sums.recorded.margins == sums.tokens).then_some(sums.ties),
        esft: EsftScores {
            token_ratio: esft::token_ratio(&loads, k, sums.tokens),
            gate_score: weighted.then(|| sums.scores.gate_score(sums.tokens)),
            sample_token_ratio: sums.scores.sample_token_ratio(),
            sample_gate_score: weighted.then(|| sums.scores.sample_gate_score()),
        },
        specialisation: null.map(|null| specialisation(totals, ordinal, null)),
        loads,
    }
}

fn load_shape(loads: &[u64], chosen: usize) -> LoadShape {
    let percentile = |q| balance::percentile(loads, q);
    let (skewness, excess_kurtosis) = balance::skewness_and_kurtosis(loads);
    LoadShape {
        percentile_5: percentile(0.05),
        percentile_25: percentile(0.25),
        median: percentile(0.5),
        percentile_75: percentile(0.75),
        percentile_95: percentile(0.95),
        skewness,
        excess_kurtosis,
        busiest_share: balance::busiest_share(loads, chosen),
    }
}

/// `counts` of `all` tokens or samples hold each expert.
fn curve(counts: &[u64], all: u64) -> Vec<CurvePoint> {
    let point = |drawn| CurvePoint { drawn, experts: coverage::rarefied(counts, all, drawn) };
    coverage::curve_points(all).into_iter().map(point).collect()
}

fn specialisation(totals: &Totals<'_>, ordinal: usize, null: &PermutationNull) -> Specialisation {
    let (joint, experts) = (totals.joint(ordinal), totals.geometry.experts());
    Specialisation {
        mutual_information_bits: domain::mutual_information(&joint, experts),
        dataset_entropy_bits: domain::row_entropy(&joint, experts),
        subset_samples: totals.subset.len() as u64,
        subset_tokens: totals.subset_tokens,
        subset_mutual_information_bits: null.observed_bits,
        null_draws: domain::NULL_DRAWS as u32,
        null_mean_bits: null.mean_bits,
        null_95th_percentile_bits: null.percentile_95_bits,
        null_max_bits: null.max_bits,
        z: null.z,
    }
}

/// Mean, least and highest of some layers' numbers; 0 of none.
pub(crate) fn spread(values: impl Iterator<Item = f64>) -> Spread {
    let values: Vec<f64> = values.collect();
    Spread {
        mean: values.iter().sum::<f64>() / values.len().max(1) as f64,
        min: values.iter().copied().reduce(f64::min).unwrap_or(0.0),
        max: values.iter().copied().reduce(f64::max).unwrap_or(0.0),
    }
}

fn overall(experts: usize, layers: &[LayerReport]) -> OverallReport {
    let of = |value: fn(&LayerReport) -> f64| spread(layers.iter().map(value));
    let sum = |value: fn(&LayerReport) -> u64| layers.iter().map(value).sum::<u64>();
    let if_known = |value: &dyn Fn(&LayerReport) -> Option<f64>| {
        let known: Option<Vec<f64>> = layers.iter().map(value).collect();
        known.map(|values| spread(values.into_iter()))
    };
    let of_specialisation = |value: fn(&Specialisation) -> f64| {
        if_known(&|layer: &LayerReport| layer.specialisation.as_ref().map(value))
    };
    let (active_slots, slots) = (sum(|l| l.active_experts), (layers.len() * experts) as u64);
    OverallReport {
        active_slots,
        slots,
        coverage: coverage::fraction(active_slots, slots),
        unique_pairs: sum(|l| l.unique_pairs),
        possible_pairs: sum(|l| l.possible_pairs),
        ties: layers.iter().map(|l| l.ties).sum(),
        layer_coverage: of(|l| l.coverage),
        layer_unique_pairs: of(|l| l.unique_pairs as f64),
        load_entropy_bits: of(|l| l.load_entropy_bits),
        load_entropy_normalised: of(|l| l.load_entropy_normalised),
        gate_entropy_bits: if_known(&|l| l.gate_entropy_bits),
        gate_entropy_normalised: if_known(&|l| l.gate_entropy_normalised),
        chosen_entropy_bits: if_known(&|l| l.chosen_entropy_bits),
        chosen_entropy_normalised: if_known(&|l| l.chosen_entropy_normalised),
        effective_experts: of(|l| l.effective_experts),
        max_vio: of(|l| l.max_vio),
        cv: of(|l| l.cv),
        gini: of(|l| l.gini),
        mutual_information_bits: of_specialisation(|s| s.mutual_information_bits),
        null_mean_bits: of_specialisation(|s| s.null_mean_bits),
    }
}

fn guide(totals: &Totals<'_>, layers: &[LayerReport]) -> GuideView {
    let e = totals.geometry.experts();
    let merged = add_up(e, layers.iter().map(|l| l.loads.as_slice()));
    let mut merged_pairs = pairs::PairCounts::new(e);
    totals.layers.iter().for_each(|layer| merged_pairs.merge(&layer.pairs));
    let active_experts = coverage::active(&merged);
    GuideView {
        active_experts,
        experts: e as u64,
        coverage: coverage::fraction(active_experts, e as u64),
        unique_pairs: merged_pairs.unique(),
        possible_pairs: pairs::possible(e),
        entropy_bits: entropy::of_counts(&merged),
        traces: totals.samples(),
    }
}

fn dataset(totals: &Totals<'_>, dataset: &DatasetTotals, layers: &[LayerReport]) -> DatasetReport {
    let e = totals.geometry.experts();
    let of_layer = |(loads, pooled): (&[u64], &LayerReport)| DatasetLayerReport {
        layer: pooled.layer,
        loads: loads.to_vec(),
        top_experts: top_experts(loads, &pooled.loads, totals.geometry.chosen(), TOP_EXPERTS),
    };
    DatasetReport {
        name: dataset.name.to_string(),
        samples: dataset.samples,
        tokens: dataset.tokens,
        bos_excluded: dataset.bos_excluded,
        layers: dataset.loads.chunks_exact(e).zip(layers).map(of_layer).collect(),
    }
}
