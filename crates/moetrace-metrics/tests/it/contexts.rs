use moetrace_metrics::cards::expert_card;
use moetrace_metrics::contexts::{CONTEXTS, Context, TOKENS_AFTER, TOKENS_BEFORE};
use moetrace_metrics::{
    ContextMetrics, ContextsReport, GroupBy, GroupMetrics, MetricsError, MetricsSettings, TrackedTokens,
    VocabularyMetrics,
};
use moetrace_routing::{LayerIndex, MoeOrdinal, RoutingPlanes, RoutingSink, RoutingView, TokenId};
use proptest::prelude::*;

use crate::text::{Layer, batch, constant_text, geometry, renamed};
use crate::written::{Written, any_written, passes, play};

fn fold(e: usize, k: usize, texts: &[Written]) -> ContextsReport {
    let geometry = geometry(e, k, texts[0].text.choices.len() as u16);
    let mut metrics = ContextMetrics::new(&geometry, &MetricsSettings::default());
    for text in texts {
        play(&geometry, &[text], &mut metrics);
    }
    metrics.report()
}

/// The highest weight that each text gives an expert, highest first.
fn highest(texts: &[Written], ordinal: usize, expert: usize) -> Vec<f32> {
    let of_text = |text: &Written| {
        let rows = text.text.choices[ordinal][text.counted()].iter();
        let weights = rows.filter_map(|choice| {
            let rank = choice.experts.iter().position(|&id| usize::from(id) == expert)?;
            Some(choice.weights[rank])
        });
        weights.reduce(f32::max)
    };
    let mut all: Vec<f32> = texts.iter().filter_map(of_text).collect();
    all.sort_by(|a, b| b.total_cmp(a));
    all.truncate(CONTEXTS);
    all
}

fn check(context: &Context, report: &ContextsReport, texts: &[Written], ordinal: usize, expert: usize) {
    let text = texts.iter().find(|text| text.text.id == context.sample).unwrap();
    assert_eq!(report.datasets[context.dataset as usize], text.text.dataset);
    let row = context.position as usize;
    assert!(text.counted().contains(&row));
    let choice = &text.text.choices[ordinal][row];
    let rank = choice.experts.iter().position(|&id| usize::from(id) == expert).unwrap();
    assert_eq!(choice.weights[rank], context.weight);
    let from = row.saturating_sub(TOKENS_BEFORE);
    let to = (row + 1 + TOKENS_AFTER).min(text.tokens.len());
    assert_eq!((&context.tokens[..], context.at as usize), (&text.tokens[from..to], row - from));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn contexts_are_the_highest_weights_of_different_texts(texts in any_written(5, 2, 2)) {
        let report = fold(5, 2, &texts);
        for (ordinal, layer) in report.layers.iter().enumerate() {
            for (expert, contexts) in layer.experts.iter().enumerate() {
                let weights: Vec<f32> = contexts.iter().map(|context| context.weight).collect();
                prop_assert_eq!(weights, highest(&texts, ordinal, expert));
                for (i, context) in contexts.iter().enumerate() {
                    prop_assert!(contexts[..i].iter().all(|other| other.sample != context.sample));
                    check(context, &report, &texts, ordinal, expert);
                }
            }
        }
    }

    #[test]
    fn any_split_merged_in_any_order_gives_the_same_report_ties_included(
        texts in any_written(5, 2, 2),
        same_weights in any::<bool>(),
        parts in proptest::collection::vec(0usize..3, 12),
        order in Just([0usize, 1, 2]).prop_shuffle(),
        pass_len in 1usize..5,
    ) {
        let mut texts = texts;
        for choice in texts.iter_mut().flat_map(|text| &mut text.text.choices).flatten().filter(|_| same_weights) {
            choice.weights.fill(0.5);
        }
        let geometry = geometry(5, 2, 2);
        let mut merged = ContextMetrics::new(&geometry, &MetricsSettings::default());
        for part in order {
            let mut shard = ContextMetrics::new(&geometry, &MetricsSettings::default());
            for pass in passes(&texts, &parts, part, pass_len) {
                play(&geometry, &pass, &mut shard);
            }
            merged.merge(shard).unwrap();
        }
        prop_assert_eq!(merged.report(), fold(5, 2, &texts));
    }

    #[test]
    fn renaming_the_experts_renames_their_contexts(
        texts in any_written(5, 2, 1),
        names in Just((0u16..5).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let plain: Vec<_> = texts.iter().map(|text| text.text.clone()).collect();
        let other: Vec<Written> = texts.iter().zip(renamed(&plain, &names))
            .map(|(text, renamed)| Written { text: renamed, ..text.clone() })
            .collect();
        let (a, b) = (fold(5, 2, &texts), fold(5, 2, &other));
        for (contexts, &name) in a.layers[0].experts.iter().zip(&names) {
            prop_assert_eq!(contexts, &b.layers[0].experts[usize::from(name)]);
        }
    }
}

/// The example of `docs/metrics.md`.
#[test]
fn a_context_is_cut_at_the_ends_of_its_text() {
    let mut text = constant_text("verse", 3, 30, 1, &[0, 1]);
    text.bos = true;
    // The BOS has the highest weight of all, and does not count.
    for (row, weight) in [(0, 0.9), (2, 0.7), (29, 0.6)] {
        text.choices[0][row].weights[0] = weight;
    }
    let tokens: Vec<u32> = (100..130).collect();
    let mut other = constant_text("verse", 4, 30, 1, &[0, 1]);
    other.choices[0][29].weights[0] = 0.8;
    let texts = [
        Written { text, label: None, tokens: tokens.clone() },
        Written { text: other, label: None, tokens: tokens.clone() },
    ];
    let report = fold(3, 2, &texts);
    let contexts = &report.layers[0].experts[0];
    let first =
        Context { dataset: 0, sample: 4, position: 29, weight: 0.8, tokens: tokens[17..].to_vec(), at: 12 };
    let second =
        Context { dataset: 0, sample: 3, position: 2, weight: 0.7, tokens: tokens[..7].to_vec(), at: 2 };
    assert_eq!(contexts, &[first, second]);
    assert!(report.layers[0].experts[2].is_empty());
}

#[test]
fn a_card_has_shares_keywords_and_contexts_and_says_what_is_absent() {
    let text = |dataset, id, experts: &[u16]| Written {
        text: constant_text(dataset, id, 20, 1, experts),
        label: None,
        tokens: vec![id; 20],
    };
    let texts = [text("code", 1, &[0, 1]), text("prose", 2, &[1, 2])];
    let (geometry, settings) = (geometry(4, 2, 1), MetricsSettings::default());
    let mut groups = GroupMetrics::new(&geometry, &settings, GroupBy::Dataset);
    let tracked = TrackedTokens::new(vec![TokenId(1), TokenId(2)]);
    let mut vocabulary = VocabularyMetrics::new(&geometry, &settings, &tracked);
    for text in &texts {
        play(&geometry, &[text], &mut groups);
        play(&geometry, &[text], &mut vocabulary);
    }
    let (groups, vocabulary, contexts) = (groups.report(), vocabulary.report(), fold(4, 2, &texts));
    let card = expert_card(0, 0, &groups, Some(&vocabulary), Some(&contexts)).unwrap();
    assert_eq!((card.layer, card.expert, card.load), (1, 0, 20));
    let shares: Vec<_> = card.groups.iter().map(|group| (group.share, group.ratio)).collect();
    assert_eq!(shares, [(1.0, 2.0), (0.0, 0.0)]);
    assert_eq!(card.keywords.unwrap()[0].token, 1);
    assert_eq!(card.contexts.unwrap()[0].sample, 1);
    let card = expert_card(0, 3, &groups, None, None).unwrap();
    assert_eq!((card.load, card.keywords, card.contexts), (0, None, None));
    assert_eq!((card.groups[0].share, card.groups[0].ratio), (0.0, 0.0));
    assert_eq!(
        (expert_card(1, 0, &groups, None, None), expert_card(0, 4, &groups, None, None)),
        (None, None)
    );
}

#[test]
fn routing_without_weights_is_refused_and_named() {
    let (geometry, text) = (geometry(3, 2, 1), constant_text("a", 0, 1, 1, &[0, 1]));
    let mut metrics = ContextMetrics::new(&geometry, &MetricsSettings::default());
    metrics.begin(&batch(&[&text])).unwrap();
    let layer = Layer::new(&[&text], MoeOrdinal(0));
    let planes = RoutingPlanes { weights: None, ..layer.planes() };
    let refused =
        metrics.record(&RoutingView::new(&geometry, MoeOrdinal(0), 1, planes).unwrap()).unwrap_err();
    assert_eq!(
        *refused.into_inner().downcast::<MetricsError>().unwrap(),
        MetricsError::NotRecorded { layer: LayerIndex(1), plane: "weights" }
    );
}

#[test]
fn totals_that_do_not_belong_together_are_not_merged_and_an_empty_report_survives_json() {
    let metrics = |k| ContextMetrics::new(&geometry(4, k, 2), &MetricsSettings::default());
    assert!(matches!(metrics(2).merge(metrics(1)), Err(MetricsError::GeometryMismatch { .. })));
    let report = metrics(2).report();
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<ContextsReport>(&json).unwrap(), report);
}
