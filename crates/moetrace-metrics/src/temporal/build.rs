//! From totals to numbers: calls the formulas, holds none.

use super::{
    CacheHitRate, ExpectedLocality, LayerTemporal, LruCaches, OverallTemporal, PositionReport, RunLengths,
    TemporalReport, WORKING_SET_WINDOWS, WorkingSet, formulas,
    totals::{LayerTotals, PositionTotals, bucket_start},
};
use crate::{affinity, coverage, joint_counts, passes::Passes, report::spread};

pub(super) fn build(passes: &Passes, totals: &[LayerTotals]) -> TemporalReport {
    let (experts, chosen) = (passes.geometry().experts(), passes.geometry().chosen());
    let layers: Vec<LayerTemporal> =
        totals.iter().map(|totals| layer(totals, experts, chosen, passes.tokens())).collect();
    TemporalReport {
        experts,
        chosen,
        tokens: passes.tokens(),
        samples: passes.samples(),
        bos_excluded: passes.bos_excluded(),
        expected: expected(experts, chosen),
        overall: overall(&layers),
        layers,
    }
}

fn expected(experts: usize, chosen: usize) -> ExpectedLocality {
    let of_window = |window: usize| coverage::expected_experts(experts, chosen, window as u64);
    ExpectedLocality {
        reuse: formulas::expected_reuse(experts, chosen),
        rank_1_repeats: formulas::expected_reuse(experts, 1),
        first_two_repeats: formulas::expected_first_two(experts, chosen),
        mean_run: formulas::expected_run(experts, chosen),
        working_sets: WORKING_SET_WINDOWS.map(of_window).to_vec(),
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    coverage::fraction(part, whole)
}

fn layer(totals: &LayerTotals, experts: usize, chosen: usize, tokens: u64) -> LayerTemporal {
    let (k, all) = (chosen as u64, totals.positions.all());
    let lags = totals.lags.iter().zip(&totals.lag_pairs);
    let joint = totals.transitions.as_ref().map(joint_counts::JointCounts::counts);
    LayerTemporal {
        layer: totals.layer.0,
        reuse: ratio(all.reused, k * all.pairs),
        expected_reuse_of_loads: formulas::expected_reuse_of_loads(&totals.loads, chosen),
        rank_1_repeats: ratio(totals.rank_1_repeats, all.pairs),
        first_two_repeats: ratio(totals.first_two_repeats, all.pairs),
        lag_reuse: lags.map(|(&shared, &pairs)| ratio(shared, k * pairs)).collect(),
        runs: runs(totals),
        working_sets: working_sets(totals, experts, tokens),
        lru: lru(totals, &all, chosen),
        positions: positions(totals, experts, chosen),
        transitions: joint.as_ref().map(|joint| affinity::of_counts(joint, experts, chosen)),
        transition_counts: joint_counts::reported(joint.unwrap_or_default(), experts),
    }
}

fn runs(totals: &LayerTotals) -> RunLengths {
    let runs = totals.runs.total();
    RunLengths {
        runs,
        mean: ratio(totals.runs.sum(), runs),
        lengths: totals.runs.counts()[1..].to_vec(),
        longer: totals.runs.above(),
    }
}

fn working_sets(totals: &LayerTotals, experts: usize, tokens: u64) -> Vec<WorkingSet> {
    let of_window = |(window, &windows): (usize, &u64)| WorkingSet {
        window,
        windows,
        experts: formulas::working_set(experts, windows, totals.gaps.excess(window - 1)),
        expected_of_loads: formulas::expected_working_set(&totals.loads, tokens, window),
    };
    WORKING_SET_WINDOWS.into_iter().zip(&totals.windows).map(of_window).collect()
}

/// K, 2 K and 4 K, as far as there are so many experts.
fn cache_sizes(experts: usize, chosen: usize) -> impl Iterator<Item = usize> {
    [1, 2, 4].into_iter().map(move |times| times * chosen).filter(move |&size| size <= experts)
}

fn lru(totals: &LayerTotals, all: &PositionTotals, chosen: usize) -> LruCaches {
    let of_size = |size| CacheHitRate {
        size,
        hit_rate: formulas::lru_hit_rate(&all.distances, size),
        static_hit_rate: formulas::static_hit_rate(&totals.loads, size),
    };
    LruCaches {
        lookups: all.distances.iter().sum(),
        cold_misses: all.distances[0],
        distances: all.distances[1..].to_vec(),
        hit_rates: cache_sizes(totals.loads.len(), chosen).map(of_size).collect(),
    }
}

fn positions(totals: &LayerTotals, experts: usize, chosen: usize) -> Vec<PositionReport> {
    let buckets = totals.positions.iter().enumerate().filter(|(_, place)| place.tokens > 0);
    let of_bucket = |(bucket, place): (usize, &PositionTotals)| PositionReport {
        from: bucket_start(bucket),
        tokens: place.tokens,
        reuse: ratio(place.reused, chosen as u64 * place.pairs),
        cold_misses: ratio(place.distances[0], place.distances.iter().sum()),
        hit_rates: cache_sizes(experts, chosen)
            .map(|size| formulas::lru_hit_rate(&place.distances, size))
            .collect(),
    };
    buckets.map(of_bucket).collect()
}

fn overall(layers: &[LayerTemporal]) -> OverallTemporal {
    let of = |value: fn(&LayerTemporal) -> f64| spread(layers.iter().map(value));
    let first = layers.first();
    let windows = first.map_or(0, |layer| layer.working_sets.len());
    let sizes = first.map_or(0, |layer| layer.lru.hit_rates.len());
    let lags = first.map_or(0, |layer| layer.lag_reuse.len());
    let shares: Option<Vec<f64>> =
        layers.iter().map(|layer| layer.transitions.as_ref().map(|t| t.information_share)).collect();
    OverallTemporal {
        reuse: of(|l| l.reuse),
        expected_reuse_of_loads: of(|l| l.expected_reuse_of_loads),
        rank_1_repeats: of(|l| l.rank_1_repeats),
        first_two_repeats: of(|l| l.first_two_repeats),
        lag_reuse: (0..lags).map(|lag| spread(layers.iter().map(|l| l.lag_reuse[lag])).mean).collect(),
        mean_run: of(|l| l.runs.mean),
        working_sets: (0..windows)
            .map(|w| spread(layers.iter().map(|l| l.working_sets[w].experts)))
            .collect(),
        lru_hit_rates: (0..sizes)
            .map(|size| spread(layers.iter().map(|l| l.lru.hit_rates[size].hit_rate)))
            .collect(),
        transition_share: shares.map(|shares| spread(shares.into_iter())),
    }
}
