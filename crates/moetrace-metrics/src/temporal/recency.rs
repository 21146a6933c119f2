//! Least-recently-used stack distances, which give the hits of every cache size at once (Mattson, Gecsei, Slutz and
//! Traiger, *Evaluation techniques for storage hierarchies*, 1970).

/// An expert that was not used yet in this sequence.
const NEVER: u32 = u32::MAX;

/// Experts in the order of their last use.
///
/// A use takes the next slot of a log and clears the expert's former slot, so that the depth of an expert is the
/// number of live slots from its own on. Bits say which slots are live, and each word of bits knows how many it
/// has: a depth costs one count of bits and one addition for each later word. A full log is written anew.
#[derive(Debug, Clone)]
pub(super) struct RecencyStack {
    /// `[E]`.
    slots: Vec<u32>,
    /// The expert of each slot, meaningful where it is live.
    log: Vec<u16>,
    live: Vec<u64>,
    /// Live slots of each word.
    counts: Vec<u32>,
    next: usize,
}

impl RecencyStack {
    /// No expert used yet.
    pub(super) fn new(experts: usize) -> Self {
        // Four times as many slots as experts: writing the log anew then costs a third of a step for each use.
        let words = (4 * experts).div_ceil(64).next_multiple_of(8);
        Self {
            slots: vec![NEVER; experts],
            log: vec![0; words * 64],
            live: vec![0; words],
            counts: vec![0; words],
            next: 0,
        }
    }

    /// The number of experts used since this one was, itself included: the smallest cache that still holds it.
    /// 0 if it was never used. `expert` is below E.
    #[inline]
    pub(super) fn depth(&self, expert: usize) -> usize {
        let slot = self.slots[expert];
        if slot == NEVER {
            return 0;
        }
        let (word, bit) = (slot as usize / 64, slot % 64);
        // All words whichever it is: a loop of always the same length is predicted.
        let later: u32 = self.counts.iter().enumerate().map(|(w, &n)| if w > word { n } else { 0 }).sum();
        ((self.live[word] >> bit).count_ones() + later) as usize
    }

    /// Puts an expert on top.
    #[inline]
    pub(super) fn touch(&mut self, expert: usize) {
        let slot = self.slots[expert];
        if slot != NEVER {
            let (word, bit) = (slot as usize / 64, slot % 64);
            self.live[word] &= !(1 << bit);
            self.counts[word] -= 1;
        }
        if self.next == self.log.len() {
            self.write_anew();
        }
        self.place(expert);
    }

    #[inline]
    fn place(&mut self, expert: usize) {
        let (word, bit) = (self.next / 64, self.next % 64);
        self.slots[expert] = self.next as u32;
        self.log[self.next] = expert as u16;
        self.live[word] |= 1 << bit;
        self.counts[word] += 1;
        self.next += 1;
    }

    /// Moves the live slots to the front, in order. The expert that is being touched is in none.
    fn write_anew(&mut self) {
        self.next = 0;
        self.counts.fill(0);
        for word in 0..self.live.len() {
            let mut bits = std::mem::take(&mut self.live[word]);
            while bits != 0 {
                let slot = word * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                // Never ahead of what is read: at most as many slots were placed as were passed.
                self.place(usize::from(self.log[slot]));
            }
        }
    }

    /// Forgets `used`, which are all experts used since the last call.
    pub(super) fn clear(&mut self, used: &[u16]) {
        for &expert in used {
            self.slots[usize::from(expert)] = NEVER;
        }
        self.live.fill(0);
        self.counts.fill(0);
        self.next = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn depths_are_those_of_a_list_moved_to_the_front(
            uses in proptest::collection::vec(0usize..70, 0..900),
            more in proptest::collection::vec(0usize..70, 0..50),
        ) {
            let mut stack = RecencyStack::new(70);
            for uses in [uses, more] {
                let mut list: Vec<usize> = Vec::new();
                for &expert in &uses {
                    let expected = list.iter().rev().position(|&e| e == expert).map_or(0, |at| at + 1);
                    prop_assert_eq!(stack.depth(expert), expected);
                    list.retain(|&e| e != expert);
                    list.push(expert);
                    stack.touch(expert);
                }
                let used: Vec<u16> = list.iter().map(|&e| e as u16).collect();
                stack.clear(&used);
            }
        }
    }
}
