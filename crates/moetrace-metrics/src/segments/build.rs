//! From totals to numbers: calls the formulas, holds none.

use super::{
    CACHE_RATIOS, Interval, LayerSegments, LayerTotals, OverallCache, OverallSegments, SegmentCache,
    SegmentReport, SegmentScores, formulas,
    resample::{Intervals, Resampled, Samples, group, random_choices},
    windows::SegmentTotals,
};
use crate::{kept_rows::KeptRows, passes::Passes, report::spread};

/// Everything but the totals that a layer's scores are made of.
struct Context {
    experts: usize,
    chosen: usize,
    tokens: u64,
    intervals: Vec<Option<Intervals>>,
    /// `[L][lengths]`.
    shuffled: Vec<Vec<SegmentTotals>>,
    /// `[lengths]`.
    random: Vec<SegmentTotals>,
}

pub(super) fn build(passes: &Passes, layers: &[LayerTotals], kept: &KeptRows) -> SegmentReport {
    let (geometry, seed) = (passes.geometry(), passes.settings().seed);
    let (experts, chosen) = (geometry.experts(), geometry.chosen());
    let samples = Samples::new(kept.samples(), geometry, seed);
    let context = Context {
        experts,
        chosen,
        tokens: passes.tokens(),
        intervals: samples.intervals(),
        shuffled: samples.shuffled(),
        random: random_choices(experts, chosen, seed),
    };
    let reports: Vec<LayerSegments> =
        layers.iter().enumerate().map(|(ordinal, totals)| context.layer(ordinal, totals)).collect();
    let lengths = 0..context.random.len();
    SegmentReport {
        experts,
        chosen,
        tokens: passes.tokens(),
        samples: passes.samples(),
        bos_excluded: passes.bos_excluded(),
        subset_samples: samples.number() as u64,
        subset_tokens: samples.tokens() as u64,
        overall: lengths.map(|at| context.overall(at, layers, &reports)).collect(),
        layers: reports,
    }
}

fn interval(resampled: Resampled) -> Interval {
    let Resampled { value, low, high, empty_draws } = resampled;
    Interval { value, low, high, empty_draws }
}

impl Context {
    fn layer(&self, ordinal: usize, totals: &LayerTotals) -> LayerSegments {
        let lengths = totals.lengths.iter().enumerate();
        LayerSegments {
            layer: totals.layer.0,
            lengths: lengths.map(|(at, lengths)| self.scores(ordinal, at, totals, lengths)).collect(),
        }
    }

    fn scores(
        &self,
        ordinal: usize,
        at: usize,
        totals: &LayerTotals,
        segments: &SegmentTotals,
    ) -> SegmentScores {
        let tokens = self.tokens.max(1) as f64;
        let probabilities = totals.loads.iter().map(|&n| n as f64 / tokens);
        let shuffled = self.shuffled.get(ordinal).map(|lengths| &lengths[at]).filter(|s| s.segments > 0);
        let cache = |size| SegmentCache {
            size,
            hit_rate: formulas::best_hit_rate(&segments.ranked, size),
            shuffled: shuffled.map(|shuffled| formulas::best_hit_rate(&shuffled.ranked, size)),
        };
        SegmentScores {
            length: segments.length,
            segments: segments.segments,
            best: group(segments),
            expected_of_loads: formulas::expected_best_group(probabilities, segments.length).srp,
            shuffled: shuffled.map(|shuffled| group(shuffled).srp),
            interval: self.intervals[at].as_ref().map(|intervals| interval(intervals.layers[ordinal])),
            caches: cache_sizes(self.experts, self.chosen).into_iter().map(cache).collect(),
        }
    }

    fn overall(&self, at: usize, totals: &[LayerTotals], layers: &[LayerSegments]) -> OverallSegments {
        let scores: Vec<&SegmentScores> = layers.iter().map(|layer| &layer.lengths[at]).collect();
        let of = |value: fn(&SegmentScores) -> f64| spread(scores.iter().map(|s| value(s)));
        let length = self.random[at].length;
        let uniform = std::iter::repeat_n(self.chosen as f64 / self.experts as f64, self.experts);
        let expected = formulas::expected_best_group(uniform, length).srp;
        let pooled = pooled(totals, at);
        let shuffled: Option<Vec<f64>> = scores.iter().map(|s| s.shuffled).collect();
        let segments = scores.first().map_or(0, |s| s.segments);
        OverallSegments {
            length,
            segments,
            srp: of(|s| s.best.srp),
            pooled,
            pooled_interval: self.intervals[at].as_ref().map(|intervals| interval(intervals.pooled)),
            expected,
            above_chance: if segments == 0 { 0.0 } else { formulas::above_chance(pooled.srp, expected) },
            expected_of_loads: of(|s| s.expected_of_loads),
            shuffled: shuffled.map(|values| spread(values.into_iter())),
            caches: self.overall_caches(at, &scores),
        }
    }

    fn overall_caches(&self, at: usize, scores: &[&SegmentScores]) -> Vec<OverallCache> {
        let of_size = |(place, size): (usize, usize)| {
            let caches = || scores.iter().map(|s| &s.caches[place]);
            let shuffled: Option<Vec<f64>> = caches().map(|cache| cache.shuffled).collect();
            OverallCache {
                size,
                ratio: size as f64 / self.chosen as f64,
                hit_rate: spread(caches().map(|cache| cache.hit_rate)),
                expected: formulas::best_hit_rate(&self.random[at].ranked, size),
                shuffled: shuffled.map(|values| spread(values.into_iter())),
            }
        };
        cache_sizes(self.experts, self.chosen).into_iter().enumerate().map(of_size).collect()
    }
}

/// SRP of all layers with one threshold.
fn pooled(totals: &[LayerTotals], at: usize) -> formulas::BestGroup {
    let mut all: Vec<u64> = Vec::new();
    for counts in totals.iter().map(|layer| &layer.lengths[at].at_least) {
        all.resize(counts.len(), 0);
        all.iter_mut().zip(counts).for_each(|(sum, n)| *sum += n);
    }
    formulas::best_group_of_counts(&all)
}

/// The ratios times K, rounded, without repetition and up to E.
fn cache_sizes(experts: usize, chosen: usize) -> Vec<usize> {
    let mut sizes: Vec<usize> =
        CACHE_RATIOS.iter().map(|ratio| (ratio * chosen as f64).round() as usize).collect();
    sizes.retain(|&size| size <= experts);
    sizes.dedup();
    sizes
}
