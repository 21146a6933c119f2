use moetrace_metrics::{MetricsReport, MetricsSettings, RoutingMetrics};
use proptest::prelude::*;

use crate::text::{Text, any_texts, constant_text, fold, geometry, play};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_split_into_shards_and_passes_merged_in_any_order_gives_the_same_report(
        texts in any_texts(7, 3, 2),
        parts in proptest::collection::vec(0usize..3, 12),
        order in Just([0usize, 1, 2]).prop_shuffle(),
        pass_len in 1usize..5,
    ) {
        let geometry = geometry(7, 3, 2);
        let settings = MetricsSettings { include_bos: false, seed: 11 };
        let whole = fold(&geometry, &texts, &settings).report();

        let mut merged = RoutingMetrics::new(&geometry, &settings);
        for part in order {
            let mine: Vec<&Text> =
                texts.iter().zip(&parts).filter(|(_, p)| **p == part).map(|(text, _)| text).collect();
            let mut shard = RoutingMetrics::new(&geometry, &settings);
            for pass in mine.chunks(pass_len) {
                play(&geometry, pass, &mut shard).unwrap();
            }
            merged.merge(shard).unwrap();
        }
        prop_assert_eq!(merged.report(), whole);
    }

    #[test]
    fn renaming_the_experts_changes_no_number_but_their_order(
        texts in any_texts(7, 3, 2),
        names in Just((0u16..7).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let geometry = geometry(7, 3, 2);
        let mut renamed = texts.clone();
        for choice in renamed.iter_mut().flat_map(|text| &mut text.choices).flatten() {
            choice.experts.iter_mut().for_each(|id| *id = names[usize::from(*id)]);
        }
        let settings = MetricsSettings::default();
        let (a, b) = (fold(&geometry, &texts, &settings).report(), fold(&geometry, &renamed, &settings).report());
        for (a, b) in a.layers.iter().zip(&b.layers) {
            for (id, &load) in a.loads.iter().enumerate() {
                prop_assert_eq!(load, b.loads[usize::from(names[id])]);
            }
            let integers = |l: &moetrace_metrics::LayerReport| (l.active_experts, l.unique_pairs, l.min, l.max, l.ties);
            prop_assert_eq!(integers(a), integers(b));
            // Sums over experts run in another order: they may differ by rounding.
            for (a, b) in [
                (a.load_entropy_bits, b.load_entropy_bits),
                (a.chosen_entropy_bits.unwrap(), b.chosen_entropy_bits.unwrap()),
                (a.gate_entropy_bits.unwrap(), b.gate_entropy_bits.unwrap()),
                (a.max_vio, b.max_vio),
                (a.cv, b.cv),
                (a.gini, b.gini),
            ] {
                prop_assert!((a - b).abs() < 1e-12, "{} {}", a, b);
            }
            let information = |l: &moetrace_metrics::LayerReport| {
                l.specialisation.as_ref().map(|s| s.mutual_information_bits)
            };
            let difference = information(a).unwrap_or(0.0) - information(b).unwrap_or(0.0);
            prop_assert!(difference.abs() < 1e-12);
        }
    }
}

#[test]
fn merging_nothing_changes_nothing() {
    let geometry = geometry(4, 2, 1);
    let settings = MetricsSettings::default();
    let texts = [constant_text("a", 0, 3, 1, &[0, 1]), constant_text("b", 0, 2, 1, &[2, 1])];
    let mut metrics = fold(&geometry, &texts, &settings);
    let before = metrics.report();
    metrics.merge(RoutingMetrics::new(&geometry, &settings)).unwrap();
    assert_eq!(metrics.report(), before);
    let mut empty = RoutingMetrics::new(&geometry, &settings);
    empty.merge(metrics).unwrap();
    assert_eq!(empty.report(), before);
}

#[test]
fn a_report_survives_json() {
    let geometry = geometry(4, 2, 2);
    let texts = [constant_text("a", 0, 4, 2, &[0, 1]), constant_text("b", 1, 4, 2, &[2, 3])];
    let report = fold(&geometry, &texts, &MetricsSettings::default()).report();
    let json = serde_json::to_string(&report).unwrap();
    let read: MetricsReport = serde_json::from_str(&json).unwrap();
    assert_eq!(read, report);
}
