//! The integers that a temporal report is computed from.

use moetrace_routing::{ExpertId, LayerIndex};

use super::{LAGS, WORKING_SET_WINDOWS};
use crate::{capped_histogram::CappedHistogram, joint_counts::JointCounts};

/// Runs up to this length have a place of their own in the histogram.
const LONGEST_RUN: usize = 64;
/// Gaps up to this length are told apart: all that the largest window needs.
const LONGEST_GAP: usize = WORKING_SET_WINDOWS[WORKING_SET_WINDOWS.len() - 1];

/// Position buckets: 0, 1, 2 to 3, 4 to 7, doubling; the last holds everything from 32,768 on.
pub(super) const BUCKETS: usize = 17;

/// First position of a bucket.
pub(crate) fn bucket_start(bucket: usize) -> u64 {
    if bucket == 0 { 0 } else { 1 << (bucket - 1) }
}

#[inline]
pub(crate) fn bucket_of(position: usize) -> usize {
    ((usize::BITS - position.leading_zeros()) as usize).min(BUCKETS - 1)
}

/// What is counted at some positions of a sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PositionTotals {
    pub(super) tokens: u64,
    /// Tokens that have one before them.
    pub(super) pairs: u64,
    /// Chosen experts that the token before chose too.
    pub(super) reused: u64,
    /// Look-ups by stack distance, `[E + 1]`; the first are those of experts not used before.
    pub(super) distances: Vec<u64>,
}

/// One [`PositionTotals`] a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Positions(Vec<PositionTotals>);

impl Positions {
    fn new(experts: usize) -> Self {
        let empty = PositionTotals { tokens: 0, pairs: 0, reused: 0, distances: vec![0; experts + 1] };
        Self(vec![empty; BUCKETS])
    }

    #[inline]
    pub(super) fn at(&mut self, position: usize) -> &mut PositionTotals {
        &mut self.0[bucket_of(position)]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &PositionTotals> {
        self.0.iter()
    }

    /// All positions together.
    pub(super) fn all(&self) -> PositionTotals {
        let mut all = self.0[0].clone();
        self.0[1..].iter().for_each(|bucket| all.merge(bucket));
        all
    }
}

impl PositionTotals {
    fn merge(&mut self, other: &Self) {
        self.tokens += other.tokens;
        self.pairs += other.pairs;
        self.reused += other.reused;
        add_each(&mut self.distances, &other.distances);
    }
}

/// What is counted in one layer.
#[derive(Debug, Clone)]
pub(super) struct LayerTotals {
    pub(super) layer: LayerIndex,
    /// Tokens that chose each expert, `[E]`.
    pub(super) loads: Vec<u64>,
    pub(super) positions: Positions,
    /// Pairs of neighbouring tokens with the same expert of rank 1.
    pub(super) rank_1_repeats: u64,
    /// Pairs of neighbouring tokens that share an expert among their first two.
    pub(super) first_two_repeats: u64,
    /// Experts shared by tokens 1 to 64 apart, `[LAGS]`.
    pub(super) lags: Vec<u64>,
    /// Pairs of tokens as far apart, `[LAGS]`.
    pub(super) lag_pairs: Vec<u64>,
    /// Lengths of stays: consecutive tokens that chose an expert.
    pub(super) runs: CappedHistogram,
    /// Lengths of absences: consecutive tokens that did not choose it, over all experts; those of 0 tokens too.
    pub(super) gaps: CappedHistogram,
    /// Windows of each length.
    pub(super) windows: [u64; WORKING_SET_WINDOWS.len()],
    pub(super) transitions: Option<JointCounts>,
}

impl LayerTotals {
    pub(super) fn new(layer: LayerIndex, experts: usize) -> Self {
        Self {
            layer,
            loads: vec![0; experts],
            positions: Positions::new(experts),
            rank_1_repeats: 0,
            first_two_repeats: 0,
            lags: vec![0; LAGS],
            lag_pairs: vec![0; LAGS],
            runs: CappedHistogram::new(LONGEST_RUN),
            gaps: CappedHistogram::new(LONGEST_GAP),
            windows: [0; WORKING_SET_WINDOWS.len()],
            transitions: JointCounts::new(experts),
        }
    }

    /// Counts a token at `position` and the one before it, which share `reused` experts.
    #[inline]
    pub(super) fn add_pair(&mut self, position: usize, reused: u64, before: &[ExpertId], ids: &[ExpertId]) {
        let place = self.positions.at(position);
        place.pairs += 1;
        place.reused += reused;
        self.rank_1_repeats += u64::from(before[0] == ids[0]);
        let second = usize::from(ids.len() > 1);
        let one_of = |id| u64::from(id == ids[0]) | u64::from(id == ids[second]);
        self.first_two_repeats += one_of(before[0]) | one_of(before[second]);
    }

    /// Counts the windows and the pairs of tokens that a sample of `tokens` tokens has.
    pub(super) fn add_length(&mut self, tokens: usize) {
        for (pairs, lag) in self.lag_pairs.iter_mut().zip(1..) {
            *pairs += tokens.saturating_sub(lag) as u64;
        }
        for (windows, length) in self.windows.iter_mut().zip(WORKING_SET_WINDOWS) {
            *windows += (tokens + 1).saturating_sub(length) as u64;
        }
    }

    pub(super) fn merge(&mut self, other: Self) {
        add_each(&mut self.loads, &other.loads);
        self.positions.0.iter_mut().zip(&other.positions.0).for_each(|(a, b)| a.merge(b));
        self.rank_1_repeats += other.rank_1_repeats;
        self.first_two_repeats += other.first_two_repeats;
        add_each(&mut self.lags, &other.lags);
        add_each(&mut self.lag_pairs, &other.lag_pairs);
        self.runs.merge(&other.runs);
        self.gaps.merge(&other.gaps);
        add_each(&mut self.windows, &other.windows);
        if let (Some(ours), Some(theirs)) = (&mut self.transitions, other.transitions) {
            ours.merge(theirs);
        }
    }
}

fn add_each(ours: &mut [u64], theirs: &[u64]) {
    ours.iter_mut().zip(theirs).for_each(|(a, b)| *a += b);
}
