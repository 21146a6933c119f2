use moetrace_metrics::pairs::pair_index;
use moetrace_metrics::{ExpertCounts, ExpertCountsReport, MetricsError, MetricsSettings};
use moetrace_routing::RoutingGeometry;
use proptest::prelude::*;

use crate::text::{Split, Text, any_long_texts, counted_sets, fold, geometry, play, renamed};

const E: usize = 6;
const K: usize = 3;
const L: usize = 2;

fn new(geometry: &RoutingGeometry, settings: &MetricsSettings) -> ExpertCounts {
    ExpertCounts::new(geometry, settings).unwrap()
}

fn counted(texts: &[Text]) -> ExpertCountsReport {
    let geometry = geometry(E, K, L as u16);
    let mut counts = new(&geometry, &MetricsSettings::default());
    for text in texts {
        play(&geometry, &[text], &mut counts).unwrap();
    }
    counts.report()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn every_count_is_that_of_its_definition(texts in any_long_texts(E, K, L)) {
        let report = counted(&texts);
        for (ordinal, layer) in report.layers.iter().enumerate() {
            let (mut loads, mut pairs, mut next) = (vec![0; E], vec![0; E * (E - 1) / 2], vec![0; E * E]);
            for (_, sets) in counted_sets(&texts, ordinal) {
                for set in &sets {
                    for &i in set {
                        loads[usize::from(i)] += 1;
                    }
                    for (at, &i) in set.iter().enumerate() {
                        set[at + 1..].iter().for_each(|&j| pairs[pair_index(E, i, j)] += 1);
                    }
                }
                for step in sets.windows(2) {
                    for (i, j) in step[0].iter().flat_map(|i| step[1].iter().map(move |j| (i, j))) {
                        next[usize::from(*i) * E + usize::from(*j)] += 1;
                    }
                }
            }
            prop_assert_eq!((&layer.loads, &layer.pairs, &layer.transitions), (&loads, &pairs, &next));
            prop_assert_eq!(loads.iter().sum::<u64>(), report.tokens * K as u64);
        }
        let core = fold(&geometry(E, K, L as u16), &texts, &MetricsSettings::default()).report();
        prop_assert_eq!((report.tokens, report.bos_excluded), (core.tokens, core.bos_excluded));
    }

    #[test]
    fn any_split_merged_in_any_order_gives_the_same_counts(
        texts in any_long_texts(E, K, L),
        parts in proptest::collection::vec(0usize..3, 6),
        order in Just([0usize, 1, 2]).prop_shuffle(),
        pass_len in 1usize..4,
    ) {
        let split = Split { texts: &texts, parts: &parts, order, pass_len };
        let merged = split.merged(&geometry(E, K, L as u16), new, ExpertCounts::merge);
        prop_assert_eq!(merged.report(), counted(&texts));
    }

    #[test]
    fn renaming_the_experts_renames_the_counts(
        texts in any_long_texts(E, K, L),
        names in Just((0..E as u16).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let (a, b) = (counted(&texts), counted(&renamed(&texts, &names)));
        for (a, b) in a.layers.iter().zip(&b.layers) {
            for i in 0..E {
                prop_assert_eq!(a.loads[i], b.loads[usize::from(names[i])]);
                for j in (0..E).filter(|&j| j != i) {
                    let pair = pair_index(E, names[i], names[j]);
                    prop_assert_eq!(a.pairs[pair_index(E, i as u16, j as u16)], b.pairs[pair]);
                    let renamed = usize::from(names[i]) * E + usize::from(names[j]);
                    prop_assert_eq!(a.transitions[i * E + j], b.transitions[renamed]);
                }
            }
        }
    }
}

#[test]
fn more_experts_than_tables_are_kept_of_are_refused() {
    let refused = ExpertCounts::new(&geometry(1025, 2, 1), &MetricsSettings::default()).unwrap_err();
    assert_eq!(refused, MetricsError::ManyExperts { found: 1025, limit: 1024 });
}
