//! What the seeded samples give beyond their totals: intervals from resampling, nulls from shuffled and random tokens.

use moetrace_routing::{ExpertId, RoutingGeometry};

use super::{
    SEGMENT_LENGTHS,
    formulas::{BestGroup, best_group},
    windows::{SegmentTotals, SlidingSegments},
};
use crate::random::SplitMix64;

/// Times that samples are drawn with replacement.
pub(super) const DRAWS: usize = 1000;
/// Orders of the tokens that the shuffled null is the mean of; each has up to 65,536 tokens.
pub(super) const SHUFFLES: usize = 4;
/// Tokens of the random null.
const RANDOM_TOKENS: usize = 16_384;

/// Where 95 % of the draws lie: the 26th and the 975th of 1,000 in ascending order, as far in from either end of fewer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Resampled {
    /// SRP over the samples as they are.
    pub(super) value: f64,
    pub(super) low: f64,
    pub(super) high: f64,
    /// Draws without a segment, which are left out.
    pub(super) empty_draws: u32,
}

/// One number a draw, and the samples' own before them; `None` of a draw without a segment.
struct Draws {
    value: f64,
    draws: Vec<Option<f64>>,
}

impl Draws {
    fn interval(self) -> Resampled {
        let all = self.draws.len();
        let mut draws: Vec<f64> = self.draws.into_iter().flatten().collect();
        draws.sort_unstable_by(f64::total_cmp);
        let (n, value) = (draws.len(), self.value);
        // The samples themselves have a segment; without any draw that has one they are all that is known.
        let at = |i: Option<usize>| i.and_then(|i| draws.get(i)).copied().unwrap_or(value);
        let (low, high) = (at(Some(n / 40)), at(n.checked_sub(1 + n / 40)));
        Resampled { value, low, high, empty_draws: (all - n) as u32 }
    }
}

/// The kept samples of a run, counted.
pub(super) struct Samples<'a> {
    rows: Vec<&'a [ExpertId]>,
    /// Tokens of each.
    lengths: Vec<usize>,
    geometry: &'a RoutingGeometry,
    seed: u64,
}

/// Intervals of one segment length.
pub(super) struct Intervals {
    /// One a layer.
    pub(super) layers: Vec<Resampled>,
    /// All layers with one threshold.
    pub(super) pooled: Resampled,
}

impl<'a> Samples<'a> {
    /// `rows` are `[L, T, K]` each.
    pub(super) fn new(rows: Vec<&'a [ExpertId]>, geometry: &'a RoutingGeometry, seed: u64) -> Self {
        let per_token = geometry.layers().len() * geometry.chosen();
        let lengths = rows.iter().map(|rows| rows.len() / per_token).collect();
        Self { rows, lengths, geometry, seed }
    }

    pub(super) fn number(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn tokens(&self) -> usize {
        self.lengths.iter().sum()
    }

    /// One layer of one sample, `[T, K]`.
    fn layer(&self, sample: usize, ordinal: usize) -> &'a [ExpertId] {
        let values = self.lengths[sample] * self.geometry.chosen();
        &self.rows[sample][ordinal * values..][..values]
    }

    /// Intervals for each of the lengths, `None` where no sample has a segment. Samples are drawn, not segments: those
    /// of one text are alike. The draws are the same for all layers.
    pub(super) fn intervals(&self) -> Vec<Option<Intervals>> {
        let draws = self.draws();
        let layers: Vec<Vec<Vec<SegmentTotals>>> =
            (0..self.geometry.layers().len()).map(|ordinal| self.count(ordinal)).collect();
        let of_length = |at: usize| {
            let any = layers.first()?.iter().any(|sample| sample[at].segments > 0);
            any.then(|| intervals(&layers, at, &draws))
        };
        (0..SEGMENT_LENGTHS.len()).map(of_length).collect()
    }

    /// How often each sample is in each draw, `[1 + DRAWS][samples]`; the first has each once.
    fn draws(&self) -> Vec<Vec<f64>> {
        let mut random = SplitMix64::new(self.seed);
        let samples = self.number();
        let mut draws = vec![vec![1.0; samples]];
        draws.extend((0..DRAWS).map(|_| {
            let mut times = vec![0.0; samples];
            (0..samples).for_each(|_| times[random.below(samples)] += 1.0);
            times
        }));
        draws
    }

    /// The totals of one layer, `[samples][lengths]`.
    fn count(&self, ordinal: usize) -> Vec<Vec<SegmentTotals>> {
        let (e, k) = (self.geometry.experts(), self.geometry.chosen());
        let mut segments = SlidingSegments::new(e);
        let of_sample = |sample| {
            let mut totals = SegmentTotals::of_all_lengths(e);
            segments.count(self.layer(sample, ordinal), k, &mut totals);
            totals
        };
        (0..self.number()).map(of_sample).collect()
    }

    /// Totals of every layer with the tokens of all samples shuffled, all layers alike and over whole samples' lengths:
    /// sets and loads stay, order and topic go. Summed over [`SHUFFLES`] orders.
    pub(super) fn shuffled(&self) -> Vec<Vec<SegmentTotals>> {
        let (e, k, layers) = (self.geometry.experts(), self.geometry.chosen(), self.geometry.layers().len());
        let mut random = SplitMix64::new(!self.seed);
        let mut order: Vec<usize> = (0..self.tokens()).collect();
        let mut segments = SlidingSegments::new(e);
        let mut totals = vec![SegmentTotals::of_all_lengths(e); layers];
        for _ in 0..SHUFFLES {
            random.shuffle(&mut order);
            for (ordinal, totals) in totals.iter_mut().enumerate() {
                let all: Vec<&[ExpertId]> = (0..self.number())
                    .flat_map(|sample| self.layer(sample, ordinal).chunks_exact(k))
                    .collect();
                let mixed: Vec<ExpertId> = order.iter().flat_map(|&token| all[token]).copied().collect();
                let mut rest = mixed.as_slice();
                for &length in &self.lengths {
                    let (text, after) = rest.split_at(length * k);
                    segments.count(text, k, totals);
                    rest = after;
                }
            }
        }
        totals
    }
}

/// Draws of one length over every layer; the first is the samples as they are, some of which have a segment.
fn intervals(layers: &[Vec<Vec<SegmentTotals>>], at: usize, draws: &[Vec<f64>]) -> Intervals {
    let length = SEGMENT_LENGTHS[at];
    let mut pooled = vec![vec![0.0; length]; draws.len()];
    // Samples have their segments in every layer.
    let first = layers.first().map_or(&[][..], Vec::as_slice);
    let has_segments = |times: &Vec<f64>| {
        first.iter().zip(times).any(|(sample, &times)| times > 0.0 && sample[at].segments > 0)
    };
    let filled: Vec<bool> = draws.iter().map(has_segments).collect();
    let interval = |srp: Vec<f64>| {
        let known = srp.iter().zip(&filled).skip(1).map(|(&srp, &filled)| filled.then_some(srp));
        Draws { value: srp.first().copied().unwrap_or(0.0), draws: known.collect() }.interval()
    };
    let mut of_layer = |samples: &Vec<Vec<SegmentTotals>>| {
        // Few segments hold an expert in every token: what follows the last count above 0 is left out.
        let counts: Vec<Vec<f64>> = samples.iter().map(|sample| reals(&sample[at].at_least)).collect();
        let values = draws.iter().zip(&mut pooled).map(|(times, pooled)| {
            let mut sums = vec![0.0; length];
            for (counts, &times) in counts.iter().zip(times).filter(|&(_, &times)| times > 0.0) {
                // Integers below 2^53: exact in any order.
                sums.iter_mut().zip(counts).for_each(|(sum, n)| *sum += times * n);
            }
            pooled.iter_mut().zip(&sums).for_each(|(all, n)| *all += n);
            best_group(&sums).srp
        });
        interval(values.collect())
    };
    let layers = layers.iter().map(&mut of_layer).collect();
    let pooled = interval(pooled.iter().map(|sums| best_group(sums).srp).collect());
    Intervals { layers, pooled }
}

fn reals(counts: &[u64]) -> Vec<f64> {
    let used = counts.iter().rposition(|&n| n > 0).map_or(0, |last| last + 1);
    counts[..used].iter().map(|&n| n as f64).collect()
}

/// Totals of tokens that choose K of E at random.
pub(super) fn random_choices(experts: usize, chosen: usize, seed: u64) -> Vec<SegmentTotals> {
    let mut random = SplitMix64::new(seed);
    let mut ids: Vec<ExpertId> = (0..experts).map(|id| ExpertId(id as u16)).collect();
    let mut all = Vec::with_capacity(RANDOM_TOKENS * chosen);
    for _ in 0..RANDOM_TOKENS {
        for place in 0..chosen {
            ids.swap(place, place + random.below(experts - place));
        }
        all.extend_from_slice(&ids[..chosen]);
    }
    let mut totals = SegmentTotals::of_all_lengths(experts);
    SlidingSegments::new(experts).count(&all, chosen, &mut totals);
    totals
}

/// SRP of totals.
pub(super) fn group(totals: &SegmentTotals) -> BestGroup {
    super::formulas::best_group_of_counts(&totals.at_least)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segments::formulas::expected_best_group;

    #[test]
    fn random_choices_score_what_binomial_counts_give() {
        for (experts, chosen) in [(64, 6), (8, 2), (128, 8)] {
            let probability = chosen as f64 / experts as f64;
            for totals in random_choices(experts, chosen, 5) {
                let expected = expected_best_group(std::iter::repeat_n(probability, experts), totals.length);
                // Of 16,384 tokens: one part in 128 at the shortest segments, less where counts average out.
                assert!((group(&totals).srp - expected.srp).abs() < 0.008, "{totals:?}");
            }
        }
    }

    #[test]
    fn an_interval_leaves_25_draws_out_at_either_end() {
        let draws = (1..=1000).rev().map(|n| Some(f64::from(n))).collect();
        let interval = Draws { value: 7.0, draws }.interval();
        assert_eq!(interval, Resampled { value: 7.0, low: 26.0, high: 975.0, empty_draws: 0 });
    }

    #[test]
    fn draws_without_a_segment_move_no_end() {
        // 1 to 80 and as many draws of nothing: two of 80 are left out at either end.
        let draws = (1..=80).flat_map(|n| [None, Some(f64::from(n))]).collect();
        let interval = Draws { value: 7.0, draws }.interval();
        assert_eq!(interval, Resampled { value: 7.0, low: 3.0, high: 78.0, empty_draws: 80 });
        let nothing = Draws { value: 7.0, draws: vec![None; 3] }.interval();
        assert_eq!(nothing, Resampled { value: 7.0, low: 7.0, high: 7.0, empty_draws: 3 });
    }
}
