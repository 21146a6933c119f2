//! From totals to numbers.

use std::collections::HashMap;

use moetrace_routing::ExpertId;

use super::{
    CoactivationReport, ExpertPair, ExpertSet, LayerCoactivation, LayerTotals, OverallCoactivation,
    SHUFFLE_DRAWS, SKETCH_HASHES, SetCount, formulas,
    shuffle::{ShuffledPairs, shuffled_pairs},
    sketch::SetHash,
};
use crate::{
    Spread, clustering::cluster, coverage, kept_rows::KeptRows, pairs, passes::Passes, random::SplitMix64,
    report::spread,
};

/// How many pairs and sets are named.
const NAMED: usize = 10;

/// Tokens of the subset that are shuffled: 100 shuffles of all 65,536 would take as long as counting ten million.
const SHUFFLED_TOKENS: usize = 16_384;

/// Up to this many experts a report holds a number for every pair (8,128 a layer at 128).
const MOST_EXPERTS_REPORTED: usize = 128;

pub(super) fn build(passes: &Passes, layers: &[LayerTotals], kept: &KeptRows) -> CoactivationReport {
    let (experts, chosen) = (passes.geometry().experts(), passes.geometry().chosen());
    let samples = kept.samples();
    let mut seeds = SplitMix64::new(passes.settings().seed);
    let of_layer = |(ordinal, totals): (usize, &LayerTotals)| {
        let rows = rows_of(&samples, ordinal, layers.len());
        let shuffled = &rows[..rows.len().min(SHUFFLED_TOKENS * chosen)];
        let null =
            shuffled_pairs(shuffled.iter().map(|id| id.0).collect(), chosen, experts, seeds.next_u64());
        layer(totals, passes, &rows, &null)
    };
    let reports: Vec<LayerCoactivation> = layers.iter().enumerate().map(of_layer).collect();
    let subset_tokens = samples.iter().map(|s| s.len()).sum::<usize>() / (layers.len() * chosen).max(1);
    CoactivationReport {
        experts,
        chosen,
        tokens: passes.tokens(),
        subset_samples: samples.len() as u64,
        subset_tokens: subset_tokens as u64,
        shuffled_tokens: subset_tokens.min(SHUFFLED_TOKENS) as u64,
        shuffles: SHUFFLE_DRAWS as u32,
        overall: overall(&reports),
        layers: reports,
    }
}

/// One layer's rows of all samples, `[N, K]`; each sample is `[L, T, K]`.
fn rows_of(samples: &[&[ExpertId]], ordinal: usize, layers: usize) -> Vec<ExpertId> {
    let rows = samples.iter().flat_map(|sample| {
        let of_layer = sample.len() / layers;
        &sample[ordinal * of_layer..][..of_layer]
    });
    rows.copied().collect()
}

fn layer(
    totals: &LayerTotals,
    passes: &Passes,
    rows: &[ExpertId],
    null: &ShuffledPairs,
) -> LayerCoactivation {
    let (experts, chosen) = (passes.geometry().experts(), passes.geometry().chosen());
    let counts = totals.pairs.dense();
    let z: Vec<Option<f64>> = (0..counts.len()).map(|pair| null.z(pair)).collect();
    let known: Vec<f64> = z.iter().flatten().copied().collect();
    let all = AllPairs { tokens: passes.tokens(), loads: &totals.loads, counts: &counts, z: &z };
    let reported = experts <= MOST_EXPERTS_REPORTED;
    LayerCoactivation {
        layer: totals.layer.0,
        common_pairs: all.first(|pair| (counts[pair] > 0).then(|| counts[pair] as f64)),
        bound_pairs: all.first(|pair| z[pair].filter(|&z| z > 0.0)),
        pairs_beyond_three: coverage::fraction(
            known.iter().filter(|z| z.abs() > 3.0).count() as u64,
            known.len() as u64,
        ),
        sets: set_count(totals, experts, chosen, passes.tokens()),
        common_sets: common_sets(rows, chosen, experts),
        clustering: cluster(&counts, &totals.loads, chosen),
        loads: totals.loads.clone(),
        pair_z: if reported {
            z.iter().map(|z| z.map(|z| (z * 100.0).round() as f32 / 100.0)).collect()
        } else {
            Vec::new()
        },
        pair_counts: if reported { counts } else { Vec::new() },
    }
}

struct AllPairs<'a> {
    tokens: u64,
    loads: &'a [u64],
    counts: &'a [u64],
    z: &'a [Option<f64>],
}

impl AllPairs<'_> {
    /// The pairs with the highest `key`, ties to the lower ids; those without a key are left out.
    fn first(&self, key: impl Fn(usize) -> Option<f64>) -> Vec<ExpertPair> {
        let experts = self.loads.len();
        let ids = (0..experts).flat_map(|low| (low + 1..experts).map(move |high| [low, high]));
        let mut keyed: Vec<(f64, usize, [usize; 2])> =
            ids.enumerate().filter_map(|(pair, ids)| Some((key(pair)?, pair, ids))).collect();
        keyed.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        keyed.truncate(NAMED);
        keyed.into_iter().map(|(_, pair, ids)| self.pair(pair, ids)).collect()
    }

    fn pair(&self, pair: usize, [low, high]: [usize; 2]) -> ExpertPair {
        let (count, i, j) = (self.counts[pair], self.loads[low], self.loads[high]);
        ExpertPair {
            experts: [low as u16, high as u16],
            count,
            lift: formulas::lift(count, i, j, self.tokens),
            pmi_bits: formulas::pmi_bits(count, i, j, self.tokens),
            jaccard: formulas::jaccard(count, i, j),
            phi: formulas::phi(count, i, j, self.tokens),
            z: self.z[pair],
        }
    }
}

fn set_count(totals: &LayerTotals, experts: usize, chosen: usize, tokens: u64) -> SetCount {
    let (distinct, exact) = totals.sets.estimate();
    let possible = pairs::possible_sets(experts, chosen);
    SetCount {
        distinct,
        exact,
        standard_error: if exact { 0.0 } else { 1.0 / ((SKETCH_HASHES - 2) as f64).sqrt() },
        possible,
        expected: coverage::expected_sets(experts, chosen, tokens),
    }
}

/// The sets that most of the `[N, K]` rows chose, ties to the lower ids.
fn common_sets(rows: &[ExpertId], chosen: usize, experts: usize) -> Vec<ExpertSet> {
    let hash = SetHash::new(experts);
    let mut seen: HashMap<u64, (u64, &[ExpertId])> = HashMap::new();
    for row in rows.chunks_exact(chosen) {
        seen.entry(hash.of(row)).or_insert((0, row)).0 += 1;
    }
    let mut counts: Vec<u64> = seen.values().map(|&(n, _)| n).collect();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    let least = counts.get(NAMED - 1).copied().unwrap_or(0);
    let of = |&(count, row): &(u64, &[ExpertId])| {
        let mut ids: Vec<u16> = row.iter().map(|id| id.0).collect();
        ids.sort_unstable();
        let share = coverage::fraction(count, (rows.len() / chosen) as u64);
        ExpertSet { experts: ids, count, share }
    };
    let mut sets: Vec<ExpertSet> = seen.values().filter(|&&(n, _)| n >= least).map(of).collect();
    sets.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.experts.cmp(&b.experts)));
    sets.truncate(NAMED);
    sets
}

fn overall(layers: &[LayerCoactivation]) -> OverallCoactivation {
    let correlations: Vec<f64> =
        layers.iter().filter_map(|l| l.clustering.as_ref()?.cophenetic_correlation).collect();
    let of = |value: fn(&LayerCoactivation) -> f64| -> Spread { spread(layers.iter().map(value)) };
    OverallCoactivation {
        distinct_sets: of(|l| l.sets.distinct),
        pairs_beyond_three: of(|l| l.pairs_beyond_three),
        cophenetic_correlation: (!correlations.is_empty()).then(|| spread(correlations.into_iter())),
    }
}
