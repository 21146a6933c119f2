//! What affinity there is by chance and by topic: the tokens of one layer turned against those of the next.

use moetrace_routing::{ExpertId, RoutingGeometry};

use super::RotationNull;
use crate::{domain, joint_counts::JointCounts, random::SplitMix64};

/// Draws of the null. Its mean is what it is for, and varies little: each draw is of up to 65,536 tokens.
const DRAWS: usize = 20;

/// For each pair of neighbouring layers the information over `samples` (`[L, T, K]` each), and what it is when the
/// later layer's tokens are turned within each sample, all layers alike, by a random number of tokens.
///
/// Turning keeps each layer's loads, each sample's topic and the order of the tokens but for one seam, and takes
/// away only that the two choices are of the same token. Tokens must not be shuffled instead: their neighbours are
/// alike, and a shuffle would make it look as if there were more of them than there are.
pub(super) fn rotation_nulls(
    samples: &[&[ExpertId]],
    geometry: &RoutingGeometry,
    seed: u64,
) -> Vec<RotationNull> {
    let (layers, k) = (geometry.layers().len(), geometry.chosen());
    let lengths: Vec<usize> = samples.iter().map(|rows| rows.len() / (layers * k)).collect();
    let mut random = SplitMix64::new(seed);
    let unturned = vec![0; lengths.len()];
    let turns: Vec<Vec<usize>> =
        (0..DRAWS).map(|_| lengths.iter().map(|&length| turn(length, &mut random)).collect()).collect();
    let tokens = lengths.iter().sum::<usize>() as u64;
    let of_layer = |first: usize| {
        let information = |turns: &[usize]| information(samples, first, &lengths, turns, geometry);
        let draws: Vec<f64> = turns.iter().map(|turns| information(turns)).collect();
        RotationNull {
            subset_samples: samples.len() as u64,
            subset_tokens: tokens,
            subset_information_bits: information(&unturned),
            draws: DRAWS as u32,
            mean_bits: draws.iter().sum::<f64>() / DRAWS as f64,
            max_bits: draws.iter().copied().fold(0.0, f64::max),
        }
    };
    (1..layers).map(|second| of_layer(second - 1)).collect()
}

/// By how much a sample is turned: at least one token, where it has two.
fn turn(length: usize, random: &mut SplitMix64) -> usize {
    if length < 2 { 0 } else { 1 + random.below(length - 1) }
}

/// Mutual information of an expert of layer ordinal `first` and one of the layer behind it.
fn information(
    samples: &[&[ExpertId]],
    first: usize,
    lengths: &[usize],
    turns: &[usize],
    geometry: &RoutingGeometry,
) -> f64 {
    let (e, k) = (geometry.experts(), geometry.chosen());
    let Some(mut table) = JointCounts::new(e) else { return 0.0 };
    for ((rows, &length), &turn) in samples.iter().zip(lengths).zip(turns) {
        let from = &rows[first * length * k..][..length * k];
        let (head, tail) = rows[(first + 1) * length * k..][..length * k].split_at(turn * k);
        table.add(from, tail, k);
        table.add(&from[tail.len()..], head, k);
    }
    domain::mutual_information(&table.counts(), e)
}
