//! How far two routers agree over some rows of one layer: the counts, and the rates they give.

use moetrace_routing::{ExpertId, RoutingView};

use crate::fidelity::AgreementReport;
use crate::fixed_sum::FixedSum;

/// What one router chose for one row: experts in rank order and their weights, `[K]` each.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choice<'a> {
    pub(super) experts: &'a [ExpertId],
    pub(super) weights: &'a [f32],
}

impl<'a> Choice<'a> {
    /// What `view` holds at `row`; `weights` are its own.
    pub(super) fn of(view: &RoutingView<'a>, weights: &'a [f32], row: usize) -> Self {
        let of_row = row * view.chosen()..(row + 1) * view.chosen();
        Self { experts: &view.experts()[of_row.clone()], weights: &weights[of_row] }
    }
}

/// Counts over some rows of one layer; integers, so that no order of adding shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Agreement {
    /// Rows by the number of experts that both chose, `[K + 1]`.
    by_shared: Vec<u64>,
    same_first: u64,
    shared_weight: FixedSum,
    reference_weight: FixedSum,
    other_weight: FixedSum,
}

impl Agreement {
    /// Of rows with `chosen` experts.
    pub(super) fn new(chosen: usize) -> Self {
        let zero = FixedSum::default();
        Self {
            by_shared: vec![0; chosen + 1],
            same_first: 0,
            shared_weight: zero,
            reference_weight: zero,
            other_weight: zero,
        }
    }

    /// Adds a row and says whether the sets are the same. `marks` is `[E]`, all of it below 0, and is left so;
    /// every id is below E.
    pub(super) fn add(&mut self, reference: Choice<'_>, other: Choice<'_>, marks: &mut [f32]) -> bool {
        for (id, &weight) in reference.experts.iter().zip(reference.weights) {
            marks[id.index()] = weight;
            self.reference_weight.add(f64::from(weight));
        }
        let mut shared = 0;
        for (id, &weight) in other.experts.iter().zip(other.weights) {
            self.other_weight.add(f64::from(weight));
            let marked = marks[id.index()];
            if marked >= 0.0 {
                shared += 1;
                // Term by term, and not the sum of a row: so the order of ranks does not show either.
                self.shared_weight.add(f64::from(marked.min(weight)));
            }
        }
        for id in reference.experts {
            marks[id.index()] = NOT_CHOSEN;
        }
        self.by_shared[shared] += 1;
        self.same_first += u64::from(reference.experts.first() == other.experts.first());
        shared == reference.experts.len()
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.by_shared.iter_mut().zip(&other.by_shared).for_each(|(a, b)| *a += b);
        self.same_first += other.same_first;
        self.shared_weight.merge(other.shared_weight);
        self.reference_weight.merge(other.reference_weight);
        self.other_weight.merge(other.other_weight);
    }

    /// The rates; 0 where there are no rows.
    pub(super) fn report(&self) -> AgreementReport {
        let rows = self.by_shared.iter().sum();
        let exact_sets = self.by_shared.last().copied().unwrap_or(0);
        AgreementReport {
            rows,
            set_overlap: set_overlap(&self.by_shared),
            jaccard: jaccard(&self.by_shared),
            exact_sets,
            exact_set_rate: rate(exact_sets, rows),
            rank_1_agreement: rate(self.same_first, rows),
            weight_overlap: self.shared_weight.mean(rows),
            reference_weight: self.reference_weight.mean(rows),
            other_weight: self.other_weight.mean(rows),
            weight_overlap_share: self.shared_weight.share(self.reference_weight, self.other_weight),
        }
    }
}

/// What [`Agreement::add`] wants at every expert between two rows.
pub(super) const NOT_CHOSEN: f32 = -1.0;

/// A part of a whole; 0 of nothing.
pub(super) fn rate(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Mean of |A ∩ B| / K over rows, `by_shared` being rows by |A ∩ B|, `[K + 1]`.
fn set_overlap(by_shared: &[u64]) -> f64 {
    let chosen = by_shared.len() as u64 - 1;
    let shared = by_shared.iter().zip(0u64..).map(|(&rows, shared)| rows * shared).sum();
    rate(shared, by_shared.iter().sum::<u64>() * chosen)
}

/// Mean of |A ∩ B| / |A ∪ B| over rows; the union of two sets of K holds 2 K - |A ∩ B|.
fn jaccard(by_shared: &[u64]) -> f64 {
    let chosen = by_shared.len() - 1;
    let of = |shared: usize| shared as f64 / (2 * chosen - shared) as f64;
    let rows: u64 = by_shared.iter().sum();
    let sum: f64 = by_shared.iter().enumerate().map(|(shared, &rows)| rows as f64 * of(shared)).sum();
    if rows == 0 { 0.0 } else { sum / rows as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(agreement: &mut Agreement, a: (&[u16], &[f32]), b: (&[u16], &[f32])) {
        let ids = |ids: &[u16]| ids.iter().map(|&id| ExpertId(id)).collect::<Vec<_>>();
        let (x, y) = (ids(a.0), ids(b.0));
        let mut marks = vec![NOT_CHOSEN; 16];
        let (reference, other) = (Choice { experts: &x, weights: a.1 }, Choice { experts: &y, weights: b.1 });
        agreement.add(reference, other, &mut marks);
        assert!(marks.iter().all(|&mark| mark == NOT_CHOSEN));
    }

    #[test]
    fn one_expert_of_two_shared_gives_a_half_and_a_third() {
        let mut agreement = Agreement::new(2);
        add(&mut agreement, (&[3, 7], &[0.5, 0.25]), (&[7, 4], &[0.75, 0.125]));
        let report = agreement.report();
        assert_eq!((report.rows, report.exact_sets), (1, 0));
        assert_eq!((report.set_overlap, report.jaccard), (0.5, 1.0 / 3.0));
        assert_eq!((report.exact_set_rate, report.rank_1_agreement), (0.0, 0.0));
        assert_eq!(
            (report.weight_overlap, report.reference_weight, report.other_weight),
            (0.25, 0.75, 0.875)
        );
        assert_eq!(report.weight_overlap_share, 0.5 / 1.625);
    }

    #[test]
    fn the_same_set_in_another_order_is_exact_but_for_the_first_rank() {
        let mut agreement = Agreement::new(2);
        add(&mut agreement, (&[3, 7], &[0.5, 0.5]), (&[7, 3], &[0.5, 0.5]));
        let report = agreement.report();
        assert_eq!((report.set_overlap, report.jaccard, report.exact_set_rate), (1.0, 1.0, 1.0));
        assert_eq!((report.rank_1_agreement, report.weight_overlap_share), (0.0, 1.0));
    }

    #[test]
    fn weights_of_0_are_chosen_all_the_same() {
        let mut agreement = Agreement::new(1);
        add(&mut agreement, (&[3], &[0.0]), (&[3], &[0.0]));
        let report = agreement.report();
        assert_eq!((report.exact_set_rate, report.weight_overlap_share), (1.0, 0.0));
    }

    #[test]
    fn no_rows_give_zeros() {
        let report = Agreement::new(4).report();
        assert_eq!(
            (report.rows, report.set_overlap, report.jaccard, report.exact_set_rate),
            (0, 0.0, 0.0, 0.0)
        );
        assert_eq!((report.rank_1_agreement, report.weight_overlap_share), (0.0, 0.0));
    }
}
