use std::collections::BTreeMap;

use moetrace_metrics::vocabulary::{LEAST_COUNT, SpecialisationScore, above_chance, expected_highest_share};
use moetrace_metrics::{
    MetricsError, MetricsSettings, TokenCounts, TrackedTokens, VocabularyMetrics, VocabularyReport,
};
use moetrace_routing::TokenId;
use proptest::prelude::*;

use crate::text::{constant_text, geometry, renamed};
use crate::written::{Written, any_written, passes, play};

fn tracked(ids: &[u32]) -> TrackedTokens {
    TrackedTokens::new(ids.iter().map(|&id| TokenId(id)).collect())
}

fn fold(e: usize, k: usize, ids: &[u32], texts: &[Written]) -> VocabularyReport {
    let geometry = geometry(e, k, texts[0].text.choices.len() as u16);
    let mut metrics = VocabularyMetrics::new(&geometry, &MetricsSettings::default(), &tracked(ids));
    for text in texts {
        play(&geometry, &[text], &mut metrics);
    }
    metrics.report()
}

/// Each text many times, so that ids occur often enough.
fn repeated(texts: &[Written]) -> Vec<Written> {
    let copy = |(id, text): (u32, &Written)| {
        let mut text = text.clone();
        text.text.id = id;
        text
    };
    (0u32..).zip(texts.iter().cycle().take(texts.len() * 8)).map(copy).collect()
}

/// The score from the definition: `next` by the token after, `ranks` of the first experts.
fn score(
    texts: &[Written],
    ids: &[u32],
    ordinal: usize,
    e: usize,
    next: bool,
    ranks: usize,
) -> SpecialisationScore {
    let mut counts: BTreeMap<u32, (u64, Vec<u64>)> = BTreeMap::new();
    let (mut tokens, mut loads) = (0u64, vec![0u64; e]);
    for text in texts {
        for row in text.counted().filter(|row| !next || row + 1 < text.text.len()) {
            let id = text.tokens[row + usize::from(next)];
            let (count, chosen) = counts.entry(id).or_insert_with(|| (0, vec![0; e]));
            (*count, tokens) = (*count + 1, tokens + 1);
            for &expert in &text.text.choices[ordinal][row].experts[..ranks] {
                chosen[usize::from(expert)] += 1;
                loads[usize::from(expert)] += 1;
            }
        }
    }
    let shares: Vec<f64> = loads.iter().map(|&load| load as f64 / tokens.max(1) as f64).collect();
    let of_id = |(id, (count, chosen)): (&u32, &(u64, Vec<u64>))| {
        let share = *chosen.iter().max().unwrap() as f64 / *count as f64;
        (ids.contains(id) && *count >= LEAST_COUNT).then(|| (share, expected_highest_share(*count, &shares)))
    };
    let all: Vec<(f64, f64)> = counts.iter().filter_map(of_id).collect();
    let mean = |value: fn(&(f64, f64)) -> f64| all.iter().map(value).sum::<f64>() / all.len().max(1) as f64;
    SpecialisationScore {
        share: mean(|&(share, _)| share),
        expected: mean(|&(_, expected)| expected),
        above_chance: mean(|&(share, expected)| above_chance(share, expected)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn scores_equal_those_of_their_definition(texts in any_written(7, 3, 2)) {
        let (texts, ids) = (repeated(&texts), [0, 1, 2, 3, 5, 6]);
        let report = fold(7, 3, &ids, &texts);
        for (ordinal, layer) in report.layers.iter().enumerate() {
            for (found, next, ranks) in [
                (layer.input.first, false, 1),
                (layer.input.chosen, false, 3),
                (layer.next.first, true, 1),
                (layer.next.chosen, true, 3),
            ] {
                let expected = score(&texts, &ids, ordinal, 7, next, ranks);
                prop_assert!((found.share - expected.share).abs() < 1e-12);
                // Chance is interpolated between counts that differ by a factor of the square root of 2.
                prop_assert!((found.expected - expected.expected).abs() < 5e-3, "{:?} {:?}", found, expected);
                prop_assert!((found.above_chance - expected.above_chance).abs() < 1e-2);
                prop_assert!(found.share <= 1.0 && found.above_chance <= 1.0);
            }
            for (expert, keywords) in layer.keywords.iter().enumerate() {
                prop_assert!(keywords.is_sorted_by(|a, b| a.z >= b.z));
                for keyword in keywords {
                    let count: usize = texts.iter().map(|text| {
                        text.counted().filter(|&row| text.tokens[row] == keyword.token
                            && text.text.choices[ordinal][row].experts.contains(&(expert as u16))).count()
                    }).sum();
                    prop_assert_eq!(keyword.count, count as u64);
                    prop_assert!(keyword.z > 0.0);
                }
            }
        }
    }

    #[test]
    fn any_split_merged_in_any_order_gives_the_same_report(
        texts in any_written(7, 3, 2),
        parts in proptest::collection::vec(0usize..3, 12),
        order in Just([0usize, 1, 2]).prop_shuffle(),
        pass_len in 1usize..5,
    ) {
        let (geometry, texts) = (geometry(7, 3, 2), repeated(&texts));
        let parts: Vec<usize> = parts.iter().copied().cycle().take(texts.len()).collect();
        let empty = || VocabularyMetrics::new(&geometry, &MetricsSettings::default(), &tracked(&[1, 3, 4]));
        let mut merged = empty();
        for part in order {
            let mut shard = empty();
            for pass in passes(&texts, &parts, part, pass_len) {
                play(&geometry, &pass, &mut shard);
            }
            merged.merge(&shard).unwrap();
        }
        prop_assert_eq!(merged.report(), fold(7, 3, &[1, 3, 4], &texts));
    }

    #[test]
    fn renaming_the_experts_renames_their_keywords_and_changes_no_score(
        texts in any_written(7, 3, 1),
        names in Just((0u16..7).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let texts = repeated(&texts);
        let plain: Vec<_> = texts.iter().map(|text| text.text.clone()).collect();
        let other: Vec<Written> = texts.iter().zip(renamed(&plain, &names))
            .map(|(text, renamed)| Written { text: renamed, ..text.clone() })
            .collect();
        let ids = [0, 1, 2, 3, 4, 5, 6, 7];
        let (a, b) = (fold(7, 3, &ids, &texts), fold(7, 3, &ids, &other));
        let (a, b) = (&a.layers[0], &b.layers[0]);
        for (keywords, &name) in a.keywords.iter().zip(&names) {
            prop_assert_eq!(keywords, &b.keywords[usize::from(name)]);
        }
        prop_assert_eq!(a.input.first.share, b.input.first.share);
        // A product over experts in another order.
        prop_assert!((a.next.chosen.above_chance - b.next.chosen.above_chance).abs() < 1e-9);
    }
}

/// The example of `docs/metrics.md`: id 7 always goes to expert 0, id 8 to expert 1 and 2 in turn.
#[test]
fn two_ids_by_hand() {
    let mut text = constant_text("a", 0, 40, 1, &[0]);
    for row in 20..40 {
        text.choices[0][row].experts = vec![1 + row as u16 % 2];
    }
    let tokens = (0..40).map(|row| if row < 20 { 7 } else { 8 }).collect();
    let report = fold(4, 1, &[7, 8], &[Written { text, label: None, tokens }]);
    assert_eq!((&report.ids[..], &report.counts[..]), (&[7, 8][..], &[20, 20][..]));
    assert_eq!((report.tokens, report.tracked_tokens, report.input_ids, report.next_ids), (40, 40, 2, 2));
    let layer = &report.layers[0];
    // max_e VS is 1 for id 7 and 1/2 for id 8.
    assert_eq!(layer.input.first.share, 0.75);
    assert_eq!(layer.input.first, layer.input.chosen);
    // Each occurs 20 times, with experts chosen by 1/2, 1/4, 1/4 and none of all tokens.
    let chance = expected_highest_share(20, &[0.5, 0.25, 0.25, 0.0]);
    assert!((layer.input.first.expected - chance).abs() < 1e-12 && (chance - 0.50).abs() < 0.01);
    assert!(
        (layer.input.first.above_chance - f64::midpoint(1.0, (0.5 - chance) / (1.0 - chance))).abs() < 1e-12
    );
    // Id 7 is followed by itself 19 times, id 8 once by expert 0's last token and 19 times by its own.
    assert!((layer.next.first.share - f64::midpoint(1.0, 0.5)).abs() < 1e-12);
    let named: Vec<Vec<(u32, u64)>> =
        layer.keywords.iter().map(|k| k.iter().map(|k| (k.token, k.count)).collect()).collect();
    assert_eq!(named, [vec![(7, 20)], vec![(8, 10)], vec![(8, 10)], vec![]]);
    // Prior 250 of 500: (270 / 250) against (250 / 270), variance 1/270 + 1/250.
    let z = (270.0f64 / 250.0).ln() * 2.0 / (1.0 / 270.0 + 1.0 / 250.0f64).sqrt();
    assert!((f64::from(layer.keywords[0][0].z) - z).abs() < 1e-6);
}

#[test]
fn an_id_of_few_occurrences_is_not_above_chance_though_its_share_is_high() {
    // 300 ids, each 10 times, all routed alike over 8 experts.
    let len = 3_000;
    let mut text = constant_text("a", 0, len, 1, &[0]);
    let mut state = 1u64;
    for choice in &mut text.choices[0] {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        choice.experts = vec![(state >> 61) as u16];
    }
    let tokens = (0..len as u32).map(|row| row % 300).collect();
    let ids: Vec<u32> = (0..300).collect();
    let score = fold(8, 1, &ids, &[Written { text, label: None, tokens }]).layers[0].input.first;
    assert!(score.share > 0.25 && score.above_chance.abs() < 0.03, "{score:?}");
}

#[test]
fn counts_of_tokens_decide_what_is_tracked() {
    let geometry = geometry(4, 2, 2);
    let mut counts = TokenCounts::default();
    counts.add(&[9, 9, 4].map(TokenId));
    assert_eq!(counts.most_frequent(&geometry), tracked(&[4, 9]));
    assert!(TokenCounts::default().most_frequent(&geometry).ids().is_empty());
}

#[test]
fn totals_that_do_not_belong_together_are_not_merged() {
    let metrics = |k, ids: &[u32]| {
        VocabularyMetrics::new(&geometry(4, k, 2), &MetricsSettings::default(), &tracked(ids))
    };
    assert_eq!(
        metrics(2, &[1, 2]).merge(&metrics(2, &[1])),
        Err(MetricsError::TrackedMismatch { found: 1, expected: 2 })
    );
    let merged = metrics(2, &[1]).merge(&metrics(1, &[1]));
    assert!(matches!(merged, Err(MetricsError::GeometryMismatch { .. })));
}

#[test]
fn no_tracked_ids_give_a_report_of_zeros_that_json_can_hold() {
    let text = Written { text: constant_text("a", 0, 30, 1, &[0, 1]), label: None, tokens: vec![5; 30] };
    let report = fold(2, 2, &[], &[text]);
    assert_eq!((report.tokens, report.tracked_tokens, report.layers[0].input.first.share), (30, 0, 0.0));
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<VocabularyReport>(&json).unwrap(), report);
}
