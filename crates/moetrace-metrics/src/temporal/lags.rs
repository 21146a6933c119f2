//! Counts of 64 lags at once.

/// Lags that are counted: 1 to this many tokens.
pub const LAGS: usize = 64;

/// Words that are added together.
const BLOCK: usize = 16;
/// Bits of a lag's counter before it is emptied; four of them are filled by one block.
const PLANES: usize = 16;
/// The most blocks that fit: 16 times as many is below 2^16.
const MOST_BLOCKS: u32 = (1 << (PLANES - 4)) - 1;

/// Adds up words bit by bit: bit b of every word is a 0 or 1 for lag b + 1.
///
/// The counters stand upright: plane p holds bit p of all 64. Sixteen words go through a tree of carry-save adders
/// (Harley and Seal; Mula, Kurz and Lemire, arXiv 1611.07612), about five operations a word however many bits are
/// set.
#[derive(Debug, Clone)]
pub(super) struct LagCounter {
    pending: [u64; BLOCK],
    filled: usize,
    planes: [u64; PLANES],
    blocks: u32,
    counts: [u64; LAGS],
}

/// Adds three bits in each of 64 places: sum and carry.
#[inline]
fn add_three(a: u64, b: u64, c: u64) -> (u64, u64) {
    let ab = a ^ b;
    (ab ^ c, (a & b) | (ab & c))
}

impl LagCounter {
    pub(super) fn new() -> Self {
        Self { pending: [0; BLOCK], filled: 0, planes: [0; PLANES], blocks: 0, counts: [0; LAGS] }
    }

    #[inline]
    pub(super) fn add(&mut self, word: u64) {
        self.pending[self.filled] = word;
        self.filled += 1;
        if self.filled == BLOCK {
            self.add_block();
        }
    }

    fn add_block(&mut self) {
        self.filled = 0;
        let mut words = self.pending;
        let mut left = BLOCK;
        let (low, high) = self.planes.split_at_mut(4);
        for plane in low {
            left /= 2;
            for i in 0..left {
                (*plane, words[i]) = add_three(*plane, words[2 * i], words[2 * i + 1]);
            }
        }
        let mut carry = words[0];
        for plane in high {
            (*plane, carry) = (*plane ^ carry, *plane & carry);
        }
        self.blocks += 1;
        if self.blocks == MOST_BLOCKS {
            self.empty_planes();
        }
    }

    fn empty_planes(&mut self) {
        self.blocks = 0;
        for (p, plane) in self.planes.iter_mut().enumerate() {
            let bits = std::mem::take(plane);
            self.counts.iter_mut().enumerate().for_each(|(b, count)| *count += ((bits >> b) & 1) << p);
        }
    }

    /// Adds everything counted to `totals`, `[LAGS]`, and begins anew.
    pub(super) fn move_to(&mut self, totals: &mut [u64]) {
        self.pending[self.filled..].fill(0);
        self.add_block();
        self.empty_planes();
        totals.iter_mut().zip(&mut self.counts).for_each(|(total, n)| *total += std::mem::take(n));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;

    #[test]
    fn every_bit_is_counted_whatever_the_number_of_words() {
        let mut random = SplitMix64::new(3);
        let mut counter = LagCounter::new();
        for words in [0usize, 1, 15, 16, 17, 1000, 70_000] {
            let mut expected = [0u64; LAGS];
            for i in 0..words {
                // Full words fill the counters; the last lengths overflow them.
                let word = if i % 2 == 0 { u64::MAX } else { random.next_u64() };
                counter.add(word);
                expected.iter_mut().enumerate().for_each(|(b, n)| *n += (word >> b) & 1);
            }
            let mut totals = [0; LAGS];
            counter.move_to(&mut totals);
            assert_eq!(totals, expected, "{words} words");
        }
    }
}
