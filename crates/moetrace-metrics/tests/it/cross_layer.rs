use moetrace_metrics::affinity::{lift, maximum_information, probability};
use moetrace_metrics::cross_layer::FARTHEST;
use moetrace_metrics::{CrossLayerMetrics, CrossLayerReport, MetricsError, MetricsSettings};
use proptest::prelude::*;

use crate::text::{Split, Text, any_long_texts, constant_text, counted_sets, geometry, play, renamed};

const E: usize = 6;
const K: usize = 2;
const L: usize = 5;

fn fold(e: usize, k: usize, texts: &[Text]) -> CrossLayerReport {
    let geometry = geometry(e, k, texts[0].choices.len() as u16);
    let mut metrics = CrossLayerMetrics::new(&geometry, &MetricsSettings::default());
    for text in texts {
        play(&geometry, &[text], &mut metrics).unwrap();
    }
    metrics.report()
}

/// Tokens with i in layer `first` and j in layer `second`.
fn naive_counts(texts: &[Text], first: usize, second: usize) -> Vec<u64> {
    let mut counts = vec![0; E * E];
    for ((_, from), (_, to)) in counted_sets(texts, first).iter().zip(&counted_sets(texts, second)) {
        for (from, to) in from.iter().zip(to) {
            for (i, j) in from.iter().flat_map(|i| to.iter().map(move |j| (i, j))) {
                counts[usize::from(*i) * E + usize::from(*j)] += 1;
            }
        }
    }
    counts
}

/// H(first) + H(second) - H(both), which is not how the crate computes it.
fn naive_information(counts: &[u64]) -> f64 {
    let total = counts.iter().sum::<u64>().max(1) as f64;
    let entropy = |n: Vec<u64>| {
        n.iter().filter(|&&n| n > 0).map(|&n| n as f64 / total).map(|p| -p * p.log2()).sum::<f64>()
    };
    let rows = counts.chunks(E).map(|row| row.iter().sum()).collect();
    let columns = (0..E).map(|j| counts.iter().skip(j).step_by(E).sum()).collect();
    entropy(rows) + entropy(columns) - entropy(counts.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_number_equals_that_of_its_definition(texts in any_long_texts(E, K, L)) {
        let report = fold(E, K, &texts);
        prop_assert_eq!((report.links.len(), report.distant.len()), (L - 1, L - 2 + L - 3));
        for (first, link) in report.links.iter().enumerate() {
            let counts = naive_counts(&texts, first, first + 1);
            let affinity = &link.affinity;
            prop_assert_eq!(&link.counts, &counts);
            prop_assert_eq!((affinity.pairs, usize::from(link.from), usize::from(link.to)), (report.tokens, first + 1, first + 2));
            prop_assert!((affinity.information_bits - naive_information(&counts)).abs() < 1e-9);
            prop_assert!(affinity.information_bits <= affinity.maximum_bits + 1e-9);
            let null = link.null.as_ref();
            // 65,536 tokens are more than these texts have.
            prop_assert!(null.is_none_or(|null| null.subset_tokens == report.tokens));
            prop_assert!(null.is_none_or(|null| (null.subset_information_bits - affinity.information_bits).abs() < 1e-12));
            prop_assert_eq!(null.is_none(), report.tokens == 0);
            for link in &affinity.strongest {
                let (i, j) = (usize::from(link.from), usize::from(link.to));
                let from = counts[i * E..][..E].iter().sum::<u64>() / K as u64;
                let to = counts.iter().skip(j).step_by(E).sum::<u64>() / K as u64;
                prop_assert_eq!(link.count, counts[i * E + j]);
                prop_assert!((link.probability - probability(link.count, from)).abs() < 1e-12);
                prop_assert!((link.lift - lift(link.count, from, to, report.tokens)).abs() < 1e-12);
                prop_assert!(link.lift > 1.0 && link.probability <= 1.0);
            }
            for mass in [affinity.top_k_mass, affinity.top_k_mass_by_load] {
                prop_assert!((0.0..=1.0 + 1e-12).contains(&mass));
            }
            // Knowing the first cannot make the best K experts worse.
            prop_assert!(affinity.top_k_mass_by_load >= affinity.popular_mass - 1e-12);
        }
        for link in &report.distant {
            let counts = naive_counts(&texts, usize::from(link.from) - 1, usize::from(link.to) - 1);
            prop_assert_eq!(usize::from(link.to - link.from), link.apart);
            prop_assert!((link.information_bits - naive_information(&counts)).abs() < 1e-9);
        }
    }

    #[test]
    fn any_split_merged_in_any_order_gives_the_same_report(
        texts in any_long_texts(E, K, 3),
        parts in proptest::collection::vec(0usize..3, 6),
        order in Just([0usize, 1, 2]).prop_shuffle(),
        pass_len in 1usize..4,
    ) {
        let split = Split { texts: &texts, parts: &parts, order, pass_len };
        let merged = split.merged(&geometry(E, K, 3), CrossLayerMetrics::new, CrossLayerMetrics::merge);
        prop_assert_eq!(merged.report(), fold(E, K, &texts));
    }

    #[test]
    fn renaming_the_experts_changes_no_number_but_their_order(
        texts in any_long_texts(E, K, 2),
        names in Just((0..E as u16).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let (a, b) = (fold(E, K, &texts), fold(E, K, &renamed(&texts, &names)));
        for (i, j) in (0..E).flat_map(|i| (0..E).map(move |j| (i, j))) {
            let renamed = usize::from(names[i]) * E + usize::from(names[j]);
            prop_assert_eq!(a.links[0].counts[i * E + j], b.links[0].counts[renamed]);
        }
        // Sums over experts run in another order: they may differ by rounding.
        let numbers = |report: &CrossLayerReport| {
            let (affinity, null) = (report.links[0].affinity.clone(), report.links[0].null);
            let of_null = null.map_or([0.0; 2], |null| [null.mean_bits, null.max_bits]);
            [affinity.information_bits, affinity.top_k_mass, affinity.top_k_mass_by_load, of_null[0], of_null[1]]
        };
        for (a, b) in numbers(&a).into_iter().zip(numbers(&b)) {
            prop_assert!((a - b).abs() < 1e-9);
        }
    }
}

/// A text of two layers: the second's experts are what `next` makes of the first's.
fn linked(id: u32, sets: &[[u16; 2]], next: impl Fn([u16; 2]) -> [u16; 2]) -> Text {
    let mut text = constant_text("a", id, sets.len(), 2, &[0, 1]);
    for (t, &set) in sets.iter().enumerate() {
        text.choices[0][t].experts = set.to_vec();
        text.choices[1][t].experts = next(set).to_vec();
    }
    text
}

/// 64 tokens of four disjoint sets in no order.
fn some_sets(seed: u64) -> Vec<[u16; 2]> {
    let mut state = seed;
    let mut sets = Vec::new();
    for _ in 0..64 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let first = (state >> 62) as u16 * 2;
        sets.push([first, first + 1]);
    }
    sets
}

#[test]
fn a_layer_that_determines_the_next_tells_all_there_is_and_other_tokens_of_the_text_next_to_nothing() {
    let texts: Vec<Text> =
        (0..40).map(|id| linked(id, &some_sets(u64::from(id)), |set| [7 - set[0], 7 - set[1]])).collect();
    let report = fold(8, 2, &texts);
    let (affinity, null) = (&report.links[0].affinity, report.links[0].null.unwrap());
    assert!((affinity.information_share - 1.0).abs() < 1e-9 && affinity.information_bits > 1.99);
    assert!((affinity.maximum_bits - maximum_information(&[1; 8], 2)).abs() < 1e-3);
    assert_eq!((affinity.top_k_mass, affinity.top_k_mass_by_load), (1.0, 1.0));
    assert_eq!((null.subset_samples, null.subset_tokens, null.draws), (40, 2560, 20));
    assert!(null.max_bits < 0.02 && null.mean_bits <= null.max_bits, "{null:?}");
}

#[test]
fn what_topic_alone_explains_stays_within_the_null() {
    // Every text has a set of its own in both layers, whatever the token.
    let texts: Vec<Text> =
        (0..40u16).map(|id| linked(u32::from(id), &[[id % 4 * 2, id % 4 * 2 + 1]; 50], |set| set)).collect();
    let report = fold(8, 2, &texts);
    let null = report.links[0].null.unwrap();
    assert!((null.subset_information_bits - 2.0).abs() < 1e-12);
    assert_eq!((null.mean_bits, null.max_bits), (null.subset_information_bits, null.subset_information_bits));
}

#[test]
fn one_layer_has_no_link_and_no_tokens_have_no_null() {
    let report = fold(4, 2, &[constant_text("a", 0, 3, 1, &[0, 1])]);
    assert!(report.links.is_empty() && report.distant.is_empty() && report.overall.by_distance.is_empty());
    let empty = CrossLayerMetrics::new(&geometry(4, 2, 5), &MetricsSettings::default()).report();
    assert!(empty.links.iter().all(|link| link.null.is_none() && link.affinity.pairs == 0));
    assert_eq!((empty.overall.by_distance.len(), empty.overall.null_mean_bits), (FARTHEST, None));
    let json = serde_json::to_string(&empty).unwrap();
    assert_eq!(serde_json::from_str::<CrossLayerReport>(&json).unwrap(), empty);
}

#[test]
fn totals_that_do_not_belong_together_are_not_merged() {
    let metrics = |k| CrossLayerMetrics::new(&geometry(4, k, 2), &MetricsSettings::default());
    assert!(matches!(metrics(2).merge(metrics(1)), Err(MetricsError::GeometryMismatch { .. })));
    let other = CrossLayerMetrics::new(&geometry(4, 2, 2), &MetricsSettings { include_bos: false, seed: 1 });
    assert!(matches!(metrics(2).merge(other), Err(MetricsError::SettingsMismatch { .. })));
}
