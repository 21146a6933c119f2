//! Experts of one layer, clustered by how often they serve a token together.
//!
//! Average linkage (Sokal and Michener 1958) on the distance 1 - Jaccard, by the `kodama` crate.

use serde::{Deserialize, Serialize};

use crate::{coactivation::jaccard, pairs};

/// Cuts into 2 to this many clusters are judged.
const MOST_CLUSTERS: usize = 12;

/// A dendrogram and how far it can be believed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Clustering {
    /// E - 1 mergers, by ascending distance; merger i makes cluster E + i.
    pub mergers: Vec<Merger>,
    /// The experts in the order of the dendrogram's leaves, `[E]`: for the axes of heat maps.
    pub leaf_order: Vec<u16>,
    /// Correlation of the distances with those at which the dendrogram joins each pair; absent if either are all equal.
    pub cophenetic_correlation: Option<f64>,
    /// Mean silhouette of cuts into 2 clusters and more.
    pub silhouettes: Vec<Silhouette>,
}

/// Two clusters that become one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Merger {
    /// An expert if below E, else the cluster that merger (id - E) made.
    pub clusters: [u16; 2],
    /// Mean distance between their experts.
    pub distance: f64,
    /// Experts of both.
    pub experts: u16,
}

/// How well separated the clusters of a cut are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Silhouette {
    /// Clusters of the cut.
    pub clusters: u16,
    /// Mean over experts of (b - a) / max(a, b), a being the mean distance to its own cluster and b to the nearest
    /// other one (Rousseeuw 1987); an expert alone has 0.
    pub mean: f64,
}

/// Clusters E experts; `counts` is the strict upper triangle, `loads` `[E]`. `None` where K = 1 or E < 3.
pub(crate) fn cluster(counts: &[u64], loads: &[u64], chosen: usize) -> Option<Clustering> {
    let experts = loads.len();
    // Ids of clusters reach 2 E - 1.
    if chosen < 2 || !(3..=usize::from(u16::MAX) / 2).contains(&experts) {
        return None;
    }
    let ids = (0..experts).flat_map(|low| (low + 1..experts).map(move |high| (low, high)));
    let distances: Vec<f64> =
        ids.zip(counts).map(|((i, j), &both)| 1.0 - jaccard(both, loads[i], loads[j])).collect();
    let dendrogram = kodama::linkage(&mut distances.clone(), experts, kodama::Method::Average);
    let mergers: Vec<Merger> = dendrogram
        .steps()
        .iter()
        .map(|step| Merger {
            clusters: [step.cluster1 as u16, step.cluster2 as u16],
            distance: step.dissimilarity,
            experts: step.size as u16,
        })
        .collect();
    let (joined_at, leaves) = follow(&mergers, experts);
    let cuts = 2..=MOST_CLUSTERS.min(experts - 1);
    let silhouettes = cuts.map(|clusters| Silhouette {
        clusters: clusters as u16,
        mean: silhouette(&distances, &cut(&mergers, experts, clusters), clusters),
    });
    Some(Clustering {
        cophenetic_correlation: correlation(&distances, &joined_at),
        silhouettes: silhouettes.collect(),
        leaf_order: leaves,
        mergers,
    })
}

/// Where a pair stands in the strict upper triangle, in either order.
fn index(experts: usize, i: usize, j: usize) -> usize {
    pairs::triangle_index(experts, i.min(j), i.max(j))
}

/// The distance at which each pair is joined, and the leaves from left to right.
fn follow(mergers: &[Merger], experts: usize) -> (Vec<f64>, Vec<u16>) {
    let mut joined_at = vec![0.0; pairs::possible(experts) as usize];
    let mut members: Vec<Vec<u16>> = (0..experts as u16).map(|id| vec![id]).collect();
    for merger in mergers {
        let [a, b] = merger.clusters.map(|id| std::mem::take(&mut members[usize::from(id)]));
        for &i in &a {
            for &j in &b {
                joined_at[index(experts, usize::from(i), usize::from(j))] = merger.distance;
            }
        }
        members.push([a, b].concat());
    }
    (joined_at, members.pop().unwrap_or_default())
}

/// The cluster of each expert, `[E]`, when the last mergers are left out so that `clusters` remain.
fn cut(mergers: &[Merger], experts: usize, clusters: usize) -> Vec<usize> {
    let mut members: Vec<Vec<usize>> = (0..experts).map(|id| vec![id]).collect();
    for merger in &mergers[..experts - clusters] {
        let [a, b] = merger.clusters.map(|id| std::mem::take(&mut members[usize::from(id)]));
        members.push([a, b].concat());
    }
    let mut of = vec![0; experts];
    for (cluster, members) in members.iter().filter(|members| !members.is_empty()).enumerate() {
        for &expert in members {
            of[expert] = cluster;
        }
    }
    of
}

fn silhouette(distances: &[f64], of: &[usize], clusters: usize) -> f64 {
    let experts = of.len();
    let mut sizes = vec![0usize; clusters];
    for &cluster in of {
        sizes[cluster] += 1;
    }
    let single = |i: usize| {
        let mut sums = vec![0.0; clusters];
        (0..experts).filter(|&j| j != i).for_each(|j| sums[of[j]] += distances[index(experts, i, j)]);
        if sizes[of[i]] == 1 {
            return 0.0;
        }
        let own = sums[of[i]] / (sizes[of[i]] - 1) as f64;
        let others = (0..clusters).filter(|&c| c != of[i]).map(|c| sums[c] / sizes[c] as f64);
        let nearest = others.fold(f64::INFINITY, f64::min);
        let widest = own.max(nearest);
        if widest > 0.0 { (nearest - own) / widest } else { 0.0 }
    };
    (0..experts).map(single).sum::<f64>() / experts as f64
}

/// Pearson's correlation; `None` if either side does not vary.
fn correlation(a: &[f64], b: &[f64]) -> Option<f64> {
    let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let sum = |x: &[f64], mx: f64, y: &[f64], my: f64| -> f64 {
        x.iter().zip(y).map(|(x, y)| (x - mx) * (y - my)).sum()
    };
    let (aa, bb) = (sum(a, mean_a, a, mean_a), sum(b, mean_b, b, mean_b));
    // Equal values leave a rounding error.
    (aa > 1e-18 && bb > 1e-18).then(|| sum(a, mean_a, b, mean_b) / (aa * bb).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Experts 0, 2 and 4 meet often, 1, 3 and 5 too, others never; 12 tokens each, 10 of them with each friend.
    fn two_groups() -> Clustering {
        let ids = (0..6).flat_map(|i| (i + 1..6).map(move |j| (i, j)));
        let counts: Vec<u64> = ids.map(|(i, j)| if i % 2 == j % 2 { 10 } else { 0 }).collect();
        cluster(&counts, &[12; 6], 3).unwrap()
    }

    /// The example of docs/metrics.md.
    #[test]
    fn three_experts_by_hand() {
        let clustering = cluster(&[8, 5, 3], &[9, 9, 6], 2).unwrap();
        let near =
            |found: f64, expected: f64| assert!((found - expected).abs() < 5e-4, "{found}, {expected}");
        let [first, second] = clustering.mergers[..] else { panic!("two mergers of three experts") };
        assert_eq!(first.clusters, [0, 1]);
        near(first.distance, 0.2);
        near(second.distance, 0.625);
        near(clustering.cophenetic_correlation.unwrap(), 0.891);
        let [two] = clustering.silhouettes[..] else { panic!("one cut") };
        near(two.mean, 0.444);
    }

    #[test]
    fn two_groups_of_friends_are_found_and_their_leaves_lie_together() {
        let clustering = two_groups();
        let parity: Vec<u16> = clustering.leaf_order.iter().map(|id| id % 2).collect();
        assert!(parity[..3].iter().all(|p| *p == parity[0]) && parity[3..].iter().all(|p| *p != parity[0]));
        let distances: Vec<f64> = clustering.mergers.iter().map(|m| m.distance).collect();
        // Jaccard within a group is 10 / 14.
        assert!(distances[..4].iter().all(|d| (d - 4.0 / 14.0).abs() < 1e-15) && distances[4] == 1.0);
        assert!((clustering.cophenetic_correlation.unwrap() - 1.0).abs() < 1e-12);
        let best = clustering.silhouettes.iter().max_by(|a, b| a.mean.total_cmp(&b.mean)).unwrap();
        assert_eq!(best.clusters, 2);
        assert!((best.mean - (1.0 - 4.0 / 14.0)).abs() < 1e-15);
    }

    #[test]
    fn experts_that_never_meet_have_no_cophenetic_correlation() {
        let clustering = cluster(&[0; 6], &[3; 4], 2).unwrap();
        assert_eq!(clustering.cophenetic_correlation, None);
        assert!(clustering.silhouettes.iter().all(|s| s.mean == 0.0));
    }

    #[test]
    fn there_is_nothing_to_cluster_with_one_choice_or_two_experts() {
        assert!(cluster(&[0; 6], &[3; 4], 1).is_none() && cluster(&[3], &[3, 3], 2).is_none());
    }
}
