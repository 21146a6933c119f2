//! How often one expert follows another: a table of ordered pairs.

use moetrace_routing::ExpertId;

/// Above this many experts no table of ordered pairs is kept (4 MiB a layer at 1,024); no model has as many.
pub(crate) const MOST_EXPERTS: usize = 1024;

/// Up to this many experts a report holds the table itself (16,384 numbers a layer at 128).
const MOST_EXPERTS_REPORTED: usize = 128;

/// For each pair (i, j) of experts, the tokens with i in one set and j in the other, `[E, E]`.
///
/// The two sets are those of one token in two layers, or of two tokens in one layer. Cells that are being counted
/// have 32 bits, so that the table of 64 experts fits the first-level cache; they are moved before they could
/// overflow.
#[derive(Debug, Clone)]
pub(crate) struct JointCounts {
    experts: usize,
    recent: Vec<u32>,
    /// The most that a cell of `recent` can hold.
    recent_rows: u64,
    /// Empty until the first move.
    earlier: Vec<u64>,
}

impl JointCounts {
    /// No pair yet; nothing at all for more experts than a table is kept of.
    pub(crate) fn new(experts: usize) -> Option<Self> {
        (experts <= MOST_EXPERTS).then(|| Self {
            experts,
            recent: vec![0; experts * experts],
            recent_rows: 0,
            earlier: Vec::new(),
        })
    }

    /// Makes room for `rows` pairs of sets, each of which raises a cell by 1 at most.
    fn make_room(&mut self, rows: usize) {
        self.recent_rows += rows as u64;
        if u32::try_from(self.recent_rows).is_err() {
            self.move_recent();
            self.recent_rows = rows as u64;
        }
    }

    fn move_recent(&mut self) {
        self.earlier.resize(self.recent.len(), 0);
        self.earlier
            .iter_mut()
            .zip(&mut self.recent)
            .for_each(|(all, n)| *all += u64::from(std::mem::take(n)));
    }

    /// Counts the K x K pairs of each row of `from` and the same row of `to`, both `[rows, K]` ids below E that are
    /// distinct within a row.
    pub(crate) fn add(&mut self, from: &[ExpertId], to: &[ExpertId], k: usize) {
        self.make_room(from.len().min(to.len()) / k);
        // The numbers that models choose: loops of known length are unrolled, which halves the time.
        match k {
            1 => self.add_rows::<1>(from, to),
            2 => self.add_rows::<2>(from, to),
            4 => self.add_rows::<4>(from, to),
            6 => self.add_rows::<6>(from, to),
            8 => self.add_rows::<8>(from, to),
            _ => from.chunks_exact(k).zip(to.chunks_exact(k)).for_each(|(from, to)| self.add_sets(from, to)),
        }
    }

    /// Counts the K (K + 1) / 2 pairs within each row of `chosen`, an expert with itself included, at (earlier, later) in
    /// the row: nothing is sorted, and the tokens of an unordered pair are those of two cells.
    pub(crate) fn add_within(&mut self, chosen: &[ExpertId], k: usize) {
        self.make_room(chosen.len() / k);
        match k {
            1 => self.add_rows_within::<1>(chosen),
            2 => self.add_rows_within::<2>(chosen),
            4 => self.add_rows_within::<4>(chosen),
            6 => self.add_rows_within::<6>(chosen),
            8 => self.add_rows_within::<8>(chosen),
            _ => chosen.chunks_exact(k).for_each(|set| self.add_set(set)),
        }
    }

    fn add_rows<const K: usize>(&mut self, from: &[ExpertId], to: &[ExpertId]) {
        let rows = from.as_chunks::<K>().0.iter().zip(to.as_chunks::<K>().0);
        rows.for_each(|(from, to)| self.add_sets(from, to));
    }

    fn add_rows_within<const K: usize>(&mut self, chosen: &[ExpertId]) {
        chosen.as_chunks::<K>().0.iter().for_each(|set| self.add_set(set));
    }

    #[inline]
    fn add_sets(&mut self, from: &[ExpertId], to: &[ExpertId]) {
        for i in from {
            let row = &mut self.recent[i.index() * self.experts..][..self.experts];
            for j in to {
                row[j.index()] += 1;
            }
        }
    }

    #[inline]
    fn add_set(&mut self, set: &[ExpertId]) {
        for (at, i) in set.iter().enumerate() {
            let row = &mut self.recent[i.index() * self.experts..][..self.experts];
            for j in &set[at..] {
                row[j.index()] += 1;
            }
        }
    }

    pub(crate) fn merge(&mut self, other: Self) {
        if u32::try_from(self.recent_rows + other.recent_rows).is_ok() {
            self.recent_rows += other.recent_rows;
            self.recent.iter_mut().zip(&other.recent).for_each(|(ours, theirs)| *ours += theirs);
        } else {
            self.move_recent();
            (self.recent, self.recent_rows) = (other.recent, other.recent_rows);
        }
        if !other.earlier.is_empty() {
            self.earlier.resize(other.earlier.len(), 0);
            self.earlier.iter_mut().zip(&other.earlier).for_each(|(ours, theirs)| *ours += theirs);
        }
    }

    /// Rows whose set had both experts of each unordered pair, `[E (E - 1) / 2]` in the order of
    /// [`pair_index`](crate::pairs::pair_index), and those whose set had each expert, `[E]`; of rows that came by
    /// [`add_within`](Self::add_within).
    pub(crate) fn within(&self) -> (Vec<u64>, Vec<u64>) {
        let (counts, e) = (self.counts(), self.experts);
        let cell = |i: usize, j: usize| counts[i * e + j];
        let pairs = (0..e).flat_map(|low| (low + 1..e).map(move |high| (low, high)));
        let pairs = pairs.map(|(low, high)| cell(low, high) + cell(high, low)).collect();
        (pairs, (0..e).map(|expert| cell(expert, expert)).collect())
    }

    /// Every cell, `[E, E]`, rows being the first set.
    pub(crate) fn counts(&self) -> Vec<u64> {
        let recent = self.recent.iter().map(|&n| u64::from(n));
        if self.earlier.is_empty() {
            return recent.collect();
        }
        recent.zip(&self.earlier).map(|(n, all)| n + all).collect()
    }
}

/// The table as a report holds it: whole, or empty where it would be too large.
pub(crate) fn reported(counts: Vec<u64>, experts: usize) -> Vec<u64> {
    if experts <= MOST_EXPERTS_REPORTED { counts } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(rows: &[(u16, u16)], moved: bool) -> JointCounts {
        let mut counts = JointCounts::new(3).unwrap();
        for &(from, to) in rows {
            if moved {
                // As if so much had been counted before that every row needs a move.
                counts.make_room(u32::MAX as usize);
            }
            counts.add(&[ExpertId(from)], &[ExpertId(to)], 1);
        }
        counts
    }

    #[test]
    fn moving_counts_before_they_overflow_changes_none_of_them() {
        let (first, second) = ([(0, 1), (0, 1), (2, 0)], [(0, 1), (1, 1)]);
        let expected = [0, 3, 0, 0, 1, 0, 1, 0, 0];
        for (a, b) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut ours = counted(&first, a);
            ours.merge(counted(&second, b));
            assert_eq!(ours.counts(), expected, "{a} {b}");
        }
    }

    #[test]
    fn no_table_is_kept_of_more_experts_than_any_model_has() {
        assert!(JointCounts::new(MOST_EXPERTS).is_some() && JointCounts::new(MOST_EXPERTS + 1).is_none());
    }
}
