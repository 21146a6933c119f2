use std::collections::BTreeMap;

use moetrace_metrics::groups::{GroupReport, MOST_LABELS};
use moetrace_metrics::{GroupBy, GroupMetrics, GroupsReport, MetricsError, MetricsSettings, RoutingMetrics};
use proptest::prelude::*;

use crate::text::{constant_text, geometry, renamed};
use crate::written::{Written, any_written, passes, play};

const ALL: [GroupBy; 3] = [GroupBy::Dataset, GroupBy::Label, GroupBy::Position];

fn fold(by: GroupBy, e: usize, k: usize, texts: &[Written]) -> GroupsReport {
    let geometry = geometry(e, k, texts[0].text.choices.len() as u16);
    let mut metrics = GroupMetrics::new(&geometry, &MetricsSettings::default(), by);
    for text in texts {
        play(&geometry, &[text], &mut metrics);
    }
    metrics.report()
}

fn written(dataset: &str, id: u32, len: usize, label: Option<&str>, experts: &[u16]) -> Written {
    let text = constant_text(dataset, id, len, 1, experts);
    Written { text, label: label.map(str::to_owned), tokens: vec![0; len] }
}

type Name = (Option<String>, Option<String>, Option<u64>);

fn name(group: &GroupReport) -> Name {
    (group.dataset.clone(), group.label.clone(), group.from)
}

/// Tokens and loads `[L][E]` of every group, from the definition.
fn by_hand(by: GroupBy, e: usize, texts: &[Written]) -> BTreeMap<Name, (u64, Vec<Vec<u64>>)> {
    let mut groups = BTreeMap::new();
    for text in texts {
        for row in text.counted() {
            let dataset = Some(text.text.dataset.clone());
            let key = match (by, &text.label) {
                (GroupBy::Dataset, _) => (dataset, None, None),
                (GroupBy::Label, None) => continue,
                (GroupBy::Label, label) => (dataset, label.clone(), None),
                (GroupBy::Position, _) => {
                    (None, None, (0..17).map(|b| (1u64 << b) >> 1).rfind(|&from| from <= row as u64))
                }
            };
            let layers = text.text.choices.len();
            let (tokens, loads) = groups.entry(key).or_insert_with(|| (0, vec![vec![0; e]; layers]));
            *tokens += 1;
            for (layer, choices) in text.text.choices.iter().enumerate() {
                choices[row].experts.iter().for_each(|&id| loads[layer][usize::from(id)] += 1);
            }
        }
    }
    groups
}

/// The definition: sum of p(g, e) log2 (p(g, e) / (p(g) p(e))).
fn information(loads: &[&Vec<u64>]) -> f64 {
    let n: u64 = loads.iter().copied().flatten().sum();
    let p = |count: u64| count as f64 / n as f64;
    let mut bits = 0.0;
    for row in loads {
        for (e, &count) in row.iter().enumerate().filter(|(_, count)| **count > 0) {
            let column = loads.iter().map(|row| row[e]).sum();
            bits += p(count) * (p(count) / (p(row.iter().sum()) * p(column))).log2();
        }
    }
    bits
}

/// What both count must be one number, whichever is printed.
fn agrees_with_the_core(e: usize, texts: &[Written]) -> Result<(), TestCaseError> {
    let geometry = geometry(e, 3, texts[0].text.choices.len() as u16);
    let mut core = RoutingMetrics::new(&geometry, &MetricsSettings::default());
    for text in texts {
        play(&geometry, &[text], &mut core);
    }
    let (core, groups) = (core.report(), fold(GroupBy::Dataset, e, 3, texts));
    for (ours, theirs) in core.datasets.iter().zip(&groups.groups) {
        prop_assert_eq!(Some(&ours.name), theirs.dataset.as_ref());
        prop_assert_eq!(
            (ours.samples, ours.tokens, ours.bos_excluded),
            (theirs.samples, theirs.tokens, theirs.bos_excluded)
        );
        let loads: Vec<Vec<u64>> = ours.layers.iter().map(|l| l.loads.clone()).collect();
        prop_assert_eq!(&loads, &theirs.loads);
    }
    prop_assert_eq!(core.datasets.len(), groups.groups.len());
    for (ours, theirs) in core.layers.iter().zip(&groups.layers) {
        let ours = ours.specialisation.as_ref();
        prop_assert_eq!(ours.is_some(), theirs.null.is_some());
        let (Some(ours), Some(null)) = (ours, theirs.null) else { continue };
        prop_assert_eq!(ours.mutual_information_bits, theirs.mutual_information_bits);
        prop_assert_eq!(
            (
                ours.subset_mutual_information_bits,
                ours.null_mean_bits,
                ours.null_95th_percentile_bits,
                ours.z
            ),
            (null.observed_bits, null.mean_bits, null.percentile_95_bits, null.z)
        );
        prop_assert_eq!((ours.subset_samples, ours.subset_tokens), (null.samples, null.tokens));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn loads_and_information_equal_those_of_their_definition(texts in any_written(7, 3, 2)) {
        for by in ALL {
            let report = fold(by, 7, 3, &texts);
            let expected = by_hand(by, 7, &texts);
            let found: BTreeMap<Name, (u64, Vec<Vec<u64>>)> = report.groups.iter()
                .filter(|group| group.tokens > 0)
                .map(|group| (name(group), (group.tokens, group.loads.clone())))
                .collect();
            prop_assert_eq!(&found, &expected);
            prop_assert!(report.groups.iter().all(|group| !group.rest));
            let counted: u64 = texts.iter().map(|text| text.counted().len() as u64).sum();
            prop_assert_eq!(report.tokens + report.ungrouped_tokens, counted);
            for (ordinal, layer) in report.layers.iter().enumerate() {
                let loads: Vec<&Vec<u64>> = expected.values().map(|(_, loads)| &loads[ordinal]).collect();
                prop_assert!((layer.mutual_information_bits - information(&loads)).abs() < 1e-12);
                prop_assert!(layer.mutual_information_bits <= layer.group_entropy_bits + 1e-12);
                prop_assert!((0.0..=1.0).contains(&layer.cramers_v));
                prop_assert!(layer.cramers_v_corrected <= layer.cramers_v + 1e-12);
                prop_assert!(layer.jensen_shannon_bits <= (loads.len().max(1) as f64).log2() + 1e-12);
                prop_assert_eq!(layer.null.is_some(), by != GroupBy::Position && expected.len() > 1);
                if let Some(within) = layer.information_within_datasets_bits {
                    prop_assert!((-1e-12..=layer.mutual_information_bits + 1e-12).contains(&within));
                    prop_assert!((layer.null.map_or(within, |null| null.observed_bits) - within).abs() < 1e-12);
                }
            }
        }
    }

    #[test]
    fn data_sets_are_counted_and_shuffled_as_the_core_does(texts in any_written(7, 3, 2)) {
        agrees_with_the_core(7, &texts)?;
    }

    #[test]
    fn any_split_merged_in_any_order_gives_the_same_report(
        texts in any_written(7, 3, 2),
        parts in proptest::collection::vec(0usize..3, 12),
        order in Just([0usize, 1, 2]).prop_shuffle(),
        pass_len in 1usize..5,
    ) {
        let geometry = geometry(7, 3, 2);
        for by in ALL {
            let mut merged = GroupMetrics::new(&geometry, &MetricsSettings::default(), by);
            for part in order {
                let mut shard = GroupMetrics::new(&geometry, &MetricsSettings::default(), by);
                for pass in passes(&texts, &parts, part, pass_len) {
                    play(&geometry, &pass, &mut shard);
                }
                merged.merge(shard).unwrap();
            }
            prop_assert_eq!(merged.report(), fold(by, 7, 3, &texts));
        }
    }

    #[test]
    fn renaming_the_experts_changes_no_number_but_their_order(
        texts in any_written(7, 3, 1),
        names in Just((0u16..7).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let plain: Vec<_> = texts.iter().map(|text| text.text.clone()).collect();
        let other: Vec<Written> = texts.iter().zip(renamed(&plain, &names))
            .map(|(text, renamed)| Written { text: renamed, ..text.clone() })
            .collect();
        for by in ALL {
            let (a, b) = (fold(by, 7, 3, &texts), fold(by, 7, 3, &other));
            for (a, b) in a.groups.iter().zip(&b.groups) {
                for (load, &name) in a.loads[0].iter().zip(&names) {
                    prop_assert_eq!(*load, b.loads[0][usize::from(name)]);
                }
            }
            for (a, b) in a.layers.iter().zip(&b.layers) {
                // Sums over experts run in another order: they may differ by rounding.
                prop_assert!((a.mutual_information_bits - b.mutual_information_bits).abs() < 1e-12);
                prop_assert!((a.cramers_v - b.cramers_v).abs() < 1e-7);
                prop_assert!((a.jensen_shannon_bits - b.jensen_shannon_bits).abs() < 1e-12);
            }
        }
    }
}

/// The example of `docs/metrics.md`.
#[test]
fn two_data_sets_by_hand() {
    let texts = [
        written("code", 0, 3, None, &[0, 1]),
        written("code", 1, 1, None, &[0, 2]),
        written("prose", 0, 4, None, &[1, 2]),
    ];
    let report = fold(GroupBy::Dataset, 3, 2, &texts);
    assert_eq!(report.groups[0].loads, [[4, 3, 1]]);
    assert_eq!(report.groups[1].loads, [[0, 4, 4]]);
    let layer = &report.layers[0];
    // Chi-square: 4 - 2, 0 - 2 of 2 each; 3 and 4 of 3.5; 1 and 4 of 2.5.
    let chi_square = 2.0 + 2.0 + 2.0 * 0.25 / 3.5 + 2.0 * 2.25 / 2.5;
    assert!((layer.chi_square - chi_square).abs() < 1e-12);
    assert!((layer.cramers_v - (chi_square / 16.0).sqrt()).abs() < 1e-12);
    // Both have 8 slots: information is the divergence, H(4, 7, 5) - (H(4, 3, 1) + H(0, 4, 4)) / 2.
    let h = |counts: &[f64]| {
        let n: f64 = counts.iter().sum();
        counts.iter().map(|c| -c / n * (c / n).log2()).sum::<f64>()
    };
    let bits = h(&[4.0, 7.0, 5.0]) - f64::midpoint(h(&[4.0, 3.0, 1.0]), 1.0);
    assert!((layer.mutual_information_bits - bits).abs() < 1e-12 && (bits - 0.343).abs() < 5e-4);
    assert!((layer.jensen_shannon_bits - bits).abs() < 1e-12);
    assert!((report.jensen_shannon_bits[0] - bits).abs() < 1e-12);
    assert_eq!((layer.group_entropy_bits, report.equalised), (1.0, None));
}

#[test]
fn labels_that_only_follow_their_data_set_tell_nothing_within_it() {
    let label = |dataset, id: u32| {
        let experts: [u16; 2] = if dataset == "a" { [0, 1] } else { [2, 3] };
        written(dataset, id, 20, Some(["x", "y"][id as usize % 2]), &experts)
    };
    let texts: Vec<Written> = (0..20).flat_map(|id| [label("a", id), label("b", id)]).collect();
    let layer = &fold(GroupBy::Label, 4, 2, &texts).layers[0];
    assert_eq!(layer.mutual_information_bits, 1.0);
    assert_eq!(layer.information_within_datasets_bits, Some(0.0));
    // No shuffle within a data set changes anything.
    let null = layer.null.unwrap();
    assert_eq!((null.observed_bits, null.max_bits, null.z), (0.0, 0.0, None));
}

#[test]
fn labels_beyond_the_most_frequent_are_put_together_and_counted() {
    let texts: Vec<Written> = (0..100u32)
        .map(|id| {
            let len = if id < 40 { 9 } else { 2 + id as usize % 2 };
            written(
                if id % 2 == 0 { "a" } else { "b" },
                id,
                len,
                Some(&format!("label {id:02}")),
                &[u16::from(id < 40)],
            )
        })
        .chain([written("a", 100, 5, None, &[0])])
        .collect();
    let report = fold(GroupBy::Label, 2, 1, &texts);
    assert_eq!((report.distinct_groups, report.distinct_groups_estimated), (100, false));
    assert_eq!((report.tokens, report.ungrouped_tokens), (40 * 9 + 30 * 2 + 30 * 3, 5));
    let (rest, told): (Vec<_>, Vec<_>) = report.groups.iter().partition(|group| group.rest);
    assert_eq!(told.len(), MOST_LABELS);
    // The odd ones of 40 to 99 have 3 tokens: the first 24 of them by data set and name are told apart.
    assert!((0..40).all(|id| told.iter().any(|g| g.label.as_deref() == Some(&format!("label {id:02}")))));
    assert_eq!(told.iter().filter(|group| group.tokens == 3).count(), 24);
    let rest: Vec<_> = rest.iter().map(|g| (g.dataset.as_deref().unwrap(), g.samples, g.tokens)).collect();
    assert_eq!(rest, [("a", 30, 60), ("b", 6, 18)]);
    assert_eq!(report.groups.iter().map(|g| g.tokens).sum::<u64>(), report.tokens);
}

#[test]
fn equal_numbers_of_tokens_are_compared_whatever_the_sizes_of_the_data_sets() {
    // Ten times as much prose as code; both choose expert 0 with the same probability.
    let texts: Vec<Written> = (0..330u32)
        .map(|id| written(if id < 30 { "code" } else { "prose" }, id, 50, None, &[u16::from(id % 3 == 0)]))
        .collect();
    let report = fold(GroupBy::Dataset, 2, 1, &texts);
    let equalised = report.equalised.unwrap();
    assert_eq!((equalised.groups, equalised.tokens), (vec![0, 1], vec![1_500, 1_500]));
    let layer = equalised.layers[0];
    assert!((layer.independent_information_bits - 1.0 / (6_000.0 * 2f64.ln())).abs() < 1e-12);
    // 30 texts of each: a difference by chance, less than a bit by far.
    assert!((0.0..0.1).contains(&layer.information_bits));
}

#[test]
fn a_text_of_nothing_but_bos_is_a_sample_of_its_group_without_tokens() {
    let mut lone = written("c", 9, 1, Some("x"), &[0]);
    lone.text.bos = true;
    for by in [GroupBy::Dataset, GroupBy::Label] {
        let report = fold(by, 2, 1, std::slice::from_ref(&lone));
        let group = &report.groups[0];
        assert_eq!((group.samples, group.tokens, group.bos_excluded), (1, 0, 1));
        assert_eq!((report.layers[0].null, report.overall), (None, None));
    }
    assert!(fold(GroupBy::Position, 2, 1, &[lone]).groups.is_empty());
}

#[test]
fn totals_that_do_not_belong_together_are_not_merged() {
    let metrics = |by| GroupMetrics::new(&geometry(4, 2, 2), &MetricsSettings::default(), by);
    assert_eq!(
        metrics(GroupBy::Label).merge(metrics(GroupBy::Dataset)),
        Err(MetricsError::GroupMismatch { found: GroupBy::Dataset, expected: GroupBy::Label })
    );
    let other = GroupMetrics::new(&geometry(4, 1, 2), &MetricsSettings::default(), GroupBy::Label);
    assert!(matches!(metrics(GroupBy::Label).merge(other), Err(MetricsError::GeometryMismatch { .. })));
}

#[test]
fn no_tokens_give_a_report_that_json_can_hold() {
    let report = fold(GroupBy::Label, 4, 2, &[written("a", 0, 3, None, &[0, 1])]);
    assert_eq!((report.tokens, report.ungrouped_tokens, report.distinct_groups), (0, 3, 0));
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<GroupsReport>(&json).unwrap(), report);
}
