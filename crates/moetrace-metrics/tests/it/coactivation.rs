use std::collections::{BTreeMap, BTreeSet};

use moetrace_metrics::coactivation::{jaccard, lift, phi};
use moetrace_metrics::{CoactivationMetrics, CoactivationReport, MetricsSettings, pairs::pair_index};
use proptest::prelude::*;

use crate::text::{
    Split, Text, any_long_texts, any_texts, constant_text, counted_sets, geometry, play, renamed,
};

const E: usize = 6;
const K: usize = 3;
const L: usize = 2;

fn fold(texts: &[Text]) -> CoactivationReport {
    let geometry = geometry(E, K, L as u16);
    let mut metrics = CoactivationMetrics::new(&geometry, &MetricsSettings::default());
    for text in texts {
        play(&geometry, &[text], &mut metrics).unwrap();
    }
    metrics.report()
}

fn sets(texts: &[Text], ordinal: usize) -> Vec<BTreeSet<u16>> {
    let rows = counted_sets(texts, ordinal).into_iter().flat_map(|(_, rows)| rows);
    rows.map(|row| row.into_iter().collect()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn pairs_and_sets_equal_those_of_a_loop_over_sets(texts in any_long_texts(E, K, L)) {
        let report = fold(&texts);
        for (ordinal, layer) in report.layers.iter().enumerate() {
            let sets = sets(&texts, ordinal);
            let with = |ids: &[u16]| sets.iter().filter(|set| ids.iter().all(|id| set.contains(id))).count() as u64;
            for i in 0..E as u16 {
                prop_assert_eq!(layer.loads[usize::from(i)], with(&[i]));
                for j in i + 1..E as u16 {
                    prop_assert_eq!(layer.pair_counts[pair_index(E, j, i)], with(&[i, j]));
                }
            }
            let mut counts: BTreeMap<Vec<u16>, u64> = BTreeMap::new();
            for set in &sets {
                *counts.entry(set.iter().copied().collect()).or_default() += 1;
            }
            prop_assert_eq!((layer.sets.distinct, layer.sets.exact), (counts.len() as f64, true));
            let mut counts: Vec<_> = counts.into_iter().collect();
            counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
            counts.truncate(10);
            let found: Vec<_> = layer.common_sets.iter().map(|set| (set.experts.clone(), set.count)).collect();
            prop_assert_eq!(found, counts);
        }
    }

    #[test]
    fn derived_numbers_keep_their_bounds_and_pairs_are_in_order(texts in any_long_texts(E, K, L)) {
        let report = fold(&texts);
        for layer in &report.layers {
            prop_assert!(layer.common_pairs.is_sorted_by(|a, b| a.count >= b.count));
            prop_assert!((0.0..=1.0).contains(&layer.pairs_beyond_three));
            for pair in layer.common_pairs.iter().chain(&layer.bound_pairs) {
                let [i, j] = pair.experts.map(|id| layer.loads[usize::from(id)]);
                prop_assert!(i.max(j) <= report.tokens && pair.count <= i.min(j));
                prop_assert_eq!(pair.lift, lift(pair.count, i, j, report.tokens));
                prop_assert!((0.0..=1.0).contains(&jaccard(pair.count, i, j)));
                prop_assert!(phi(pair.count, i, j, report.tokens).abs() <= 1.0 + 1e-12);
            }
            if let Some(clustering) = &layer.clustering {
                let mut leaves = clustering.leaf_order.clone();
                leaves.sort_unstable();
                prop_assert_eq!(leaves, (0..E as u16).collect::<Vec<_>>());
                prop_assert!(clustering.mergers.is_sorted_by(|a, b| a.distance <= b.distance));
                prop_assert!(clustering.silhouettes.iter().all(|s| s.mean.abs() <= 1.0));
                prop_assert!(clustering.cophenetic_correlation.is_none_or(|c| c.abs() <= 1.0 + 1e-12));
            }
        }
    }

    #[test]
    fn any_split_merged_in_any_order_gives_the_same_report(
        texts in any_texts(E, K, L),
        parts in proptest::collection::vec(0usize..3, 12),
        order in Just([0usize, 1, 2]).prop_shuffle(),
        pass_len in 1usize..5,
    ) {
        let split = Split { texts: &texts, parts: &parts, order, pass_len };
        let merged = split.merged(&geometry(E, K, L as u16), CoactivationMetrics::new, CoactivationMetrics::merge);
        prop_assert_eq!(merged.report(), fold(&texts));
    }

    #[test]
    fn renaming_the_experts_renames_the_pairs(
        texts in any_texts(E, K, L),
        names in Just((0..E as u16).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let (a, b) = (fold(&texts), fold(&renamed(&texts, &names)));
        for (a, b) in a.layers.iter().zip(&b.layers) {
            for i in 0..E {
                prop_assert_eq!(a.loads[i], b.loads[usize::from(names[i])]);
                for j in i + 1..E {
                    let there = pair_index(E, names[i], names[j]);
                    prop_assert_eq!(a.pair_counts[pair_index(E, i as u16, j as u16)], b.pair_counts[there]);
                }
            }
            prop_assert_eq!(a.sets.distinct, b.sets.distinct);
        }
    }
}

#[test]
fn no_tokens_and_one_choice_give_reports_that_json_can_hold() {
    let one = geometry(4, 1, 1);
    let mut metrics = CoactivationMetrics::new(&one, &MetricsSettings::default());
    for tokens in [0, 5] {
        if tokens > 0 {
            play(&one, &[&constant_text("a", 0, tokens, 1, &[2])], &mut metrics).unwrap();
        }
        let report = metrics.report();
        let layer = &report.layers[0];
        assert_eq!((report.tokens, layer.sets.distinct), (tokens as u64, f64::from(u8::from(tokens > 0))));
        assert!(layer.common_pairs.is_empty() && layer.bound_pairs.is_empty() && layer.clustering.is_none());
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<CoactivationReport>(&json).unwrap(), report);
    }
}
