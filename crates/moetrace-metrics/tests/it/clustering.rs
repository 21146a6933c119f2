//! The dendrogram of random co-activation against average linkage by its definition, O(E^3) a merger.

use std::collections::BTreeSet;

use moetrace_metrics::{Clustering, CoactivationMetrics, MetricsSettings};
use proptest::prelude::*;

use crate::text::{Text, any_choice, geometry, play};

const E: usize = 9;
const K: usize = 3;

/// Distances nearer than this may be joined in either order.
const TIE: f64 = 1e-9;

type Cluster = BTreeSet<u16>;

fn clustering(text: &Text) -> Clustering {
    let geometry = geometry(E, K, 1);
    let mut sink = CoactivationMetrics::new(&geometry, &MetricsSettings::default());
    play(&geometry, &[text], &mut sink).unwrap();
    sink.report().layers[0].clustering.clone().unwrap()
}

/// One minus the share of tokens of either expert that have both.
fn distance(text: &Text, a: u16, b: u16) -> f64 {
    let has = |id: u16| text.choices[0].iter().map(move |choice| choice.experts.contains(&id));
    let both = has(a).zip(has(b)).filter(|&(a, b)| a && b).count();
    let either = has(a).zip(has(b)).filter(|&(a, b)| a || b).count();
    1.0 - if either == 0 { 0.0 } else { both as f64 / either as f64 }
}

fn mean_distance(text: &Text, a: &Cluster, b: &Cluster) -> f64 {
    let pairs = a.iter().flat_map(|&i| b.iter().map(move |&j| distance(text, i, j)));
    pairs.sum::<f64>() / (a.len() * b.len()) as f64
}

/// What is joined, at which distance, and all clusters after that; `None` where two joins are equally near.
fn average_linkage(text: &Text) -> Option<Vec<(Cluster, f64, Vec<Cluster>)>> {
    let mut clusters: Vec<Cluster> = (0..E as u16).map(|id| [id].into()).collect();
    let mut joins = Vec::new();
    while clusters.len() > 1 {
        let mut near: Vec<(f64, usize, usize)> = (0..clusters.len())
            .flat_map(|a| (a + 1..clusters.len()).map(move |b| (a, b)))
            .map(|(a, b)| (mean_distance(text, &clusters[a], &clusters[b]), a, b))
            .collect();
        near.sort_by(|a, b| a.0.total_cmp(&b.0));
        if near.get(1).is_some_and(|next| next.0 - near[0].0 < TIE) {
            return None;
        }
        let (at, a, b) = near[0];
        let other = clusters.remove(b);
        clusters[a].extend(other);
        joins.push((clusters[a].clone(), at, clusters.clone()));
    }
    Some(joins)
}

/// Mean silhouette of a cut (Rousseeuw 1987).
fn silhouette(text: &Text, clusters: &[Cluster]) -> f64 {
    let of = |i: u16| {
        let own = clusters.iter().find(|c| c.contains(&i)).unwrap();
        if own.len() == 1 {
            return 0.0;
        }
        let mean = |c: &Cluster| {
            let others: Vec<f64> = c.iter().filter(|&&j| j != i).map(|&j| distance(text, i, j)).collect();
            others.iter().sum::<f64>() / others.len() as f64
        };
        let (a, b) =
            (mean(own), clusters.iter().filter(|c| *c != own).map(mean).fold(f64::INFINITY, f64::min));
        if a.max(b) == 0.0 { 0.0 } else { (b - a) / a.max(b) }
    };
    (0..E as u16).map(of).sum::<f64>() / E as f64
}

fn pearson(a: &[f64], b: &[f64]) -> f64 {
    let (n, sum) = (a.len() as f64, |x: &[f64]| x.iter().sum::<f64>());
    let product = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    let covariance = |x: &[f64], y: &[f64]| product(x, y) / n - sum(x) / n * (sum(y) / n);
    covariance(a, b) / (covariance(a, a) * covariance(b, b)).sqrt()
}

/// The experts of each merger.
fn members(clustering: &Clustering) -> Vec<Cluster> {
    let mut all: Vec<Cluster> = (0..E as u16).map(|id| [id].into()).collect();
    for merger in &clustering.mergers {
        let [a, b] = merger.clusters.map(usize::from);
        all.push(all[a].union(&all[b]).copied().collect());
    }
    all.split_off(E)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn mergers_correlation_and_silhouettes_are_those_of_the_definition(
        choices in proptest::collection::vec(any_choice(E, K), 150..250),
    ) {
        let text = Text { dataset: "a".into(), id: 0, bos: false, choices: vec![choices] };
        let joins = average_linkage(&text);
        prop_assume!(joins.is_some());
        let (joins, found) = (joins.unwrap(), clustering(&text));
        for ((merger, members), (experts, at, _)) in
            found.mergers.iter().zip(members(&found)).zip(&joins)
        {
            prop_assert_eq!(&members, experts);
            prop_assert!((merger.distance - at).abs() < 1e-12, "{} {}", merger.distance, at);
            prop_assert_eq!(usize::from(merger.experts), experts.len());
        }
        let pairs = || (0..E as u16).flat_map(|i| (i + 1..E as u16).map(move |j| (i, j)));
        let apart: Vec<f64> = pairs().map(|(i, j)| distance(&text, i, j)).collect();
        let joined: Vec<f64> = pairs()
            .map(|(i, j)| joins.iter().find(|(c, ..)| c.contains(&i) && c.contains(&j)).unwrap().1)
            .collect();
        prop_assert!((found.cophenetic_correlation.unwrap() - pearson(&apart, &joined)).abs() < 1e-9);
        prop_assert_eq!(found.silhouettes.len(), E - 2);
        for cut in &found.silhouettes {
            let clusters = &joins[E - 1 - usize::from(cut.clusters)].2;
            prop_assert_eq!(clusters.len(), usize::from(cut.clusters));
            prop_assert!((cut.mean - silhouette(&text, clusters)).abs() < 1e-12);
        }
        // Leaves of a merger lie side by side.
        for cluster in members(&found) {
            let places: Vec<usize> =
                (0..E).filter(|&at| cluster.contains(&found.leaf_order[at])).collect();
            prop_assert_eq!(places.last().unwrap() - places[0] + 1, cluster.len());
        }
    }
}
