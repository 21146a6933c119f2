//! Counts of experts in sliding segments.

use moetrace_routing::ExpertId;

use super::SEGMENT_LENGTHS;

/// What the segments of one length hold, summed over segments.
///
/// In a segment of m tokens let `c_e` be the tokens that chose expert e. Both vectors sum to m K segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SegmentTotals {
    /// m.
    pub(super) length: usize,
    /// Segments; they slide by one token and lie within a sample.
    pub(super) segments: u64,
    /// Experts with `c_e` of at least 1, 2, ... m, `[m]`.
    pub(super) at_least: Vec<u64>,
    /// The largest `c_e`, the second largest, ..., `[E]`.
    pub(super) ranked: Vec<u64>,
}

impl SegmentTotals {
    fn new(length: usize, experts: usize) -> Self {
        Self { length, segments: 0, at_least: vec![0; length], ranked: vec![0; experts] }
    }

    /// Nothing yet, one for each of the lengths.
    pub(super) fn of_all_lengths(experts: usize) -> Vec<Self> {
        SEGMENT_LENGTHS.map(|length| Self::new(length, experts)).to_vec()
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.segments += other.segments;
        self.at_least.iter_mut().zip(&other.at_least).for_each(|(a, b)| *a += b);
        self.ranked.iter_mut().zip(&other.ranked).for_each(|(a, b)| *a += b);
    }
}

/// The segment that ends at the token at hand, one for each length; reused.
#[derive(Debug, Clone)]
pub(super) struct SlidingSegments {
    windows: Vec<Window>,
}

#[derive(Debug, Clone)]
struct Window {
    /// `c_e`, `[E]`.
    counts: Vec<u32>,
    /// Experts with `c_e` of at least 1, 2, ... m, `[m]`.
    holders: Vec<u32>,
}

impl SlidingSegments {
    pub(super) fn new(experts: usize) -> Self {
        let window = |length| Window { counts: vec![0; experts], holders: vec![0; length] };
        Self { windows: SEGMENT_LENGTHS.map(window).to_vec() }
    }

    /// Counts every segment of a sample, `chosen` being `[T, K]` ids below E, into `totals` of all lengths.
    pub(super) fn count(&mut self, chosen: &[ExpertId], k: usize, totals: &mut [SegmentTotals]) {
        for (window, totals) in self.windows.iter_mut().zip(totals) {
            window.slide(chosen, k, totals);
        }
    }
}

impl Window {
    /// A sum over segments needs no walk over experts: that `c_e` rises from c to c + 1 changes two numbers, the
    /// experts with at least c + 1 and the (s + 1)-th largest count, s being the experts that had c + 1 before. It
    /// does so for this segment and for all that follow, and what falls takes away as much again.
    fn slide(&mut self, chosen: &[ExpertId], k: usize, totals: &mut SegmentTotals) {
        let (tokens, length) = (chosen.len() / k, totals.length);
        if tokens < length {
            return;
        }
        totals.segments += (tokens - length + 1) as u64;
        for (t, ids) in chosen.chunks_exact(k).enumerate() {
            // Segments that end at this token or later; the first of all ends at token m - 1.
            let following = (tokens - t.max(length - 1)) as u64;
            if let Some(first) = t.checked_sub(length) {
                for id in &chosen[first * k..][..k] {
                    self.fall(id.index(), following, totals);
                }
            }
            for id in ids {
                self.rise(id.index(), following, totals);
            }
        }
        self.counts.fill(0);
        self.holders.fill(0);
    }

    #[inline]
    fn rise(&mut self, expert: usize, following: u64, totals: &mut SegmentTotals) {
        let count = self.counts[expert] as usize;
        self.counts[expert] += 1;
        let rank = self.holders[count] as usize;
        self.holders[count] += 1;
        totals.at_least[count] = totals.at_least[count].wrapping_add(following);
        totals.ranked[rank] = totals.ranked[rank].wrapping_add(following);
    }

    /// The sums stay below 0 for no longer than the sample.
    #[inline]
    fn fall(&mut self, expert: usize, following: u64, totals: &mut SegmentTotals) {
        self.counts[expert] -= 1;
        let count = self.counts[expert] as usize;
        self.holders[count] -= 1;
        let rank = self.holders[count] as usize;
        totals.at_least[count] = totals.at_least[count].wrapping_sub(following);
        totals.ranked[rank] = totals.ranked[rank].wrapping_sub(following);
    }
}
