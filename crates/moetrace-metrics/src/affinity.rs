//! How much one set of experts tells about another: formulas over a table of ordered pairs.
//!
//! `joint` is `[E, E]`: cell (i, j) holds the token pairs with i in the first set and j in the second, both sets of K
//! experts. A row then sums to K times the token pairs with i in the first set. The sets are those of one
//! token in two layers (`ExFlow`, arXiv 2401.08383: expert affinity) or of two tokens in one layer.

use serde::{Deserialize, Serialize};

use crate::{domain, entropy};

/// How many links are named.
const STRONGEST: usize = 10;

/// What the first set tells about the second. Entropies and information are in bits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Affinity {
    /// Token pairs counted.
    pub pairs: u64,
    /// Mutual information of one expert of the first set and one of the second.
    pub information_bits: f64,
    /// The most it can be, see [`maximum_information`].
    pub maximum_bits: f64,
    /// The information over this maximum: 0 if the sets are independent, 1 if one expert determines the second set.
    pub information_share: f64,
    /// Part of the second sets that lies in the K experts most frequent after i, mean over the i that were used.
    pub top_k_mass: f64,
    /// The same with each i counted as often as it was used: the recall of a prefetch of K experts by one expert.
    pub top_k_mass_by_load: f64,
    /// Part of the second sets that lies in their K most frequent experts, whatever the first set was.
    pub popular_mass: f64,
    /// The links that add most to the information, strongest first.
    pub strongest: Vec<Link>,
}

/// One expert of the first set and one of the second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// Expert of the first set.
    pub from: u16,
    /// Expert of the second set.
    pub to: u16,
    /// Token pairs that have both.
    pub count: u64,
    /// Part of the token pairs with `from` that have `to`: P(to | from).
    pub probability: f64,
    /// This over the part of all token pairs that have `to`; 1 if independent.
    pub lift: f64,
}

/// The part of the `from` token pairs that have both; 0 of none.
pub fn probability(both: u64, from: u64) -> f64 {
    if from == 0 { 0.0 } else { both as f64 / from as f64 }
}

/// P(both) / (P(from) P(to)) over `pairs` token pairs; 0 if either never occurs.
pub fn lift(both: u64, from: u64, to: u64, pairs: u64) -> f64 {
    if from == 0 || to == 0 { 0.0 } else { both as f64 * pairs as f64 / (from as f64 * to as f64) }
}

/// Token pairs with each expert in the first set and in the second, `[E]` each.
pub fn loads(joint: &[u64], experts: usize, chosen: usize) -> (Vec<u64>, Vec<u64>) {
    let from = joint.chunks_exact(experts).map(|row| row.iter().sum::<u64>() / chosen as u64);
    let mut to = vec![0; experts];
    for row in joint.chunks_exact(experts) {
        to.iter_mut().zip(row).for_each(|(sum, n)| *sum += n);
    }
    for sum in &mut to {
        *sum /= chosen as u64;
    }
    (from.collect(), to)
}

/// What the mutual information cannot exceed, in bits: H(second) - log2 K.
///
/// K distinct experts follow each i, so that none has more than 1/K of a row, whose entropy is at least log2 K.
pub fn maximum_information(to: &[u64], chosen: usize) -> f64 {
    (entropy::of_counts(to) - (chosen as f64).log2()).max(0.0)
}

/// Part of `counts` that its `most` largest entries hold; 0 of nothing.
pub fn top_mass(counts: &[u64], most: usize) -> f64 {
    let mut sorted = counts.to_vec();
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    let top: u64 = sorted.iter().take(most).sum();
    probability(top, sorted.iter().sum())
}

/// Every number, of sets of `chosen` out of `experts`.
pub fn of_counts(joint: &[u64], experts: usize, chosen: usize) -> Affinity {
    let (from, to) = loads(joint, experts, chosen);
    let pairs = from.iter().sum::<u64>() / chosen as u64;
    let masses: Vec<f64> = joint.chunks_exact(experts).map(|row| top_mass(row, chosen)).collect();
    let used = from.iter().filter(|&&n| n > 0).count();
    let by_load = masses.iter().zip(&from).map(|(mass, &n)| mass * n as f64).sum::<f64>();
    let information_bits = domain::mutual_information(joint, experts);
    let maximum_bits = maximum_information(&to, chosen);
    Affinity {
        pairs,
        information_bits,
        maximum_bits,
        // Below this there is nothing to tell but rounding, as where K = E.
        information_share: if maximum_bits < 1e-9 { 0.0 } else { information_bits / maximum_bits },
        top_k_mass: masses.iter().sum::<f64>() / used.max(1) as f64,
        top_k_mass_by_load: by_load / (from.iter().sum::<u64>()).max(1) as f64,
        popular_mass: top_mass(&to, chosen),
        strongest: strongest(joint, (&from, &to), pairs),
    }
}

/// The cells with the largest n log2 lift, ties to the lower ids.
fn strongest(joint: &[u64], (from, to): (&[u64], &[u64]), pairs: u64) -> Vec<Link> {
    let experts = to.len();
    let mut links: Vec<(f64, usize)> = joint
        .iter()
        .enumerate()
        .filter(|&(_, &count)| count > 0)
        .map(|(cell, &count)| {
            let lift = lift(count, from[cell / experts], to[cell % experts], pairs);
            (count as f64 * lift.log2(), cell)
        })
        .filter(|&(bits, _)| bits > 0.0)
        .collect();
    links.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let named = links.iter().take(STRONGEST).map(|&(_, cell)| {
        let (i, j, count) = (cell / experts, cell % experts, joint[cell]);
        let (probability, lift) = (probability(count, from[i]), lift(count, from[i], to[j], pairs));
        Link { from: i as u16, to: j as u16, count, probability, lift }
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of `docs/metrics.md`: four token pairs of K = 1, E = 3.
    #[test]
    fn the_example_of_the_documentation() {
        // 0 -> 1 twice, 0 -> 2 once, 1 -> 2 once.
        let joint = [0, 2, 1, 0, 0, 1, 0, 0, 0];
        let affinity = of_counts(&joint, 3, 1);
        assert_eq!(loads(&joint, 3, 1), (vec![3, 1, 0], vec![0, 2, 2]));
        // 1/2 log2 (2 * 4 / (3 * 2)) + 1/4 log2 (1 * 4 / (3 * 2)) + 1/4 log2 (1 * 4 / (1 * 2)).
        let bits = 0.5 * (4.0f64 / 3.0).log2() + 0.25 * (2.0f64 / 3.0).log2() + 0.25;
        assert!((affinity.information_bits - bits).abs() < 1e-12 && (bits - 0.3113).abs() < 5e-5);
        assert!((affinity.maximum_bits - 1.0).abs() < 1e-12);
        assert_eq!((affinity.pairs, affinity.popular_mass), (4, 0.5));
        assert!((affinity.top_k_mass - 5.0 / 6.0).abs() < 1e-12);
        assert!((affinity.top_k_mass_by_load - 0.75).abs() < 1e-12);
        // 1 log2 2 adds more than 2 log2 4/3; the third link occurs less often than by chance.
        let named: Vec<_> = affinity.strongest.iter().map(|l| (l.from, l.to, l.count)).collect();
        assert_eq!(named, [(1, 2, 1), (0, 1, 2)]);
        let link = affinity.strongest[1];
        assert!((link.probability - 2.0 / 3.0).abs() < 1e-12 && (link.lift - 4.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn one_expert_that_determines_the_next_set_tells_all_there_is() {
        // Sets {0, 1} and {2, 3} follow themselves.
        let joint = [[5, 5, 0, 0], [5, 5, 0, 0], [0, 0, 7, 7], [0, 0, 7, 7]].concat();
        let affinity = of_counts(&joint, 4, 2);
        assert!((affinity.information_share - 1.0).abs() < 1e-12);
        assert_eq!((affinity.pairs, affinity.top_k_mass, affinity.top_k_mass_by_load), (12, 1.0, 1.0));
    }

    #[test]
    fn nothing_tells_nothing() {
        let affinity = of_counts(&[0; 16], 4, 2);
        assert_eq!((affinity.pairs, affinity.information_bits, affinity.information_share), (0, 0.0, 0.0));
        assert_eq!(
            (affinity.top_k_mass, affinity.top_k_mass_by_load, affinity.popular_mass),
            (0.0, 0.0, 0.0)
        );
        assert!(affinity.strongest.is_empty());
        // Where every expert is chosen, sets do not differ.
        let all = of_counts(&[3; 4], 2, 2);
        assert_eq!((all.information_bits, all.information_share, all.top_k_mass), (0.0, 0.0, 1.0));
    }
}
