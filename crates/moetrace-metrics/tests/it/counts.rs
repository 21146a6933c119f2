use std::collections::BTreeSet;

use moetrace_metrics::{MetricsSettings, RoutingMetrics};
use proptest::prelude::*;

use crate::text::{Text, any_texts, constant_text, fold, geometry};

const ALL_ROWS: MetricsSettings = MetricsSettings { include_bos: true, seed: 0 };

/// Every expert once as often as every other, in pairs that never overlap.
fn uniform_texts() -> Vec<Text> {
    (0u32..).zip([[0, 1], [2, 3], [4, 5], [6, 7]]).map(|(id, e)| constant_text("a", id, 5, 3, &e)).collect()
}

#[test]
fn uniform_routing_gives_the_closed_forms_in_every_layer_and_overall() {
    let report = fold(&geometry(8, 2, 3), &uniform_texts(), &ALL_ROWS).report();
    assert_eq!((report.tokens, report.experts, report.chosen), (20, 8, 2));
    for layer in &report.layers {
        assert_eq!((layer.load_entropy_bits, layer.load_entropy_normalised), (3.0, 1.0));
        assert_eq!((layer.effective_experts, layer.coverage), (8.0, 1.0));
        assert_eq!((layer.max_vio, layer.cv, layer.gini, layer.min, layer.max), (0.0, 0.0, 0.0, 5, 5));
        assert_eq!((layer.unique_pairs, layer.possible_pairs), (4, 28));
        assert_eq!((layer.chosen_entropy_bits, layer.chosen_entropy_normalised), (Some(1.0), Some(1.0)));
        assert!((layer.gate_entropy_normalised.unwrap() - 1.0 / 3.0).abs() < 1e-15);
        assert!(layer.specialisation.is_none(), "one data set tells nothing");
    }
    let overall = &report.overall;
    assert_eq!((overall.active_slots, overall.slots, overall.coverage), (24, 24, 1.0));
    assert_eq!((overall.unique_pairs, overall.possible_pairs), (12, 84));
    assert_eq!((overall.load_entropy_bits.mean, overall.load_entropy_bits.min), (3.0, 3.0));
    assert!(overall.mutual_information_bits.is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn a_glance_has_the_numbers_of_the_report(texts in any_texts(6, 2, 3)) {
        let metrics = fold(&geometry(6, 2, 3), &texts, &MetricsSettings::default());
        let (glance, report) = (metrics.glance(), metrics.report());
        prop_assert_eq!((glance.tokens, glance.coverage), (report.tokens, report.overall.coverage));
        for (glance, report) in [
            (glance.load_entropy_normalised, &report.overall.load_entropy_normalised),
            (glance.max_vio, &report.overall.max_vio),
        ] {
            prop_assert!((glance - report.mean).abs() < 1e-12);
        }
    }
}

#[test]
fn the_guides_view_merges_ids_of_all_layers_and_the_others_never_do() {
    // Layer 1 uses experts 0 and 1 alone, layer 2 experts 2 and 3 alone.
    let mut text = constant_text("a", 0, 4, 2, &[0, 1]);
    text.choices[1] = constant_text("a", 0, 4, 1, &[3, 2]).choices.remove(0);
    let report = fold(&geometry(4, 2, 2), &[text], &ALL_ROWS).report();
    let guide = &report.guide;
    assert_eq!((guide.active_experts, guide.experts, guide.coverage), (4, 4, 1.0));
    assert_eq!((guide.unique_pairs, guide.possible_pairs, guide.entropy_bits), (2, 6, 2.0));
    assert_eq!(guide.traces, 1);
    assert_eq!((report.overall.coverage, report.overall.unique_pairs), (0.5, 2));
    assert!(report.layers.iter().all(|l| l.coverage == 0.5 && l.load_entropy_bits == 1.0));
    assert_eq!(report.layers.iter().map(|l| l.layer).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn choosing_every_expert_has_no_tie_and_full_coverage() {
    let mut text = constant_text("a", 0, 3, 1, &[1, 0]);
    text.choices[0].iter_mut().for_each(|choice| choice.margin = 0.0);
    let report = fold(&geometry(2, 2, 1), &[text], &ALL_ROWS).report();
    let layer = &report.layers[0];
    assert_eq!((layer.ties, report.rows_with_tie), (Some(0), Some(0)));
    assert_eq!((layer.coverage, layer.expected_active_experts, layer.gini), (1.0, 2.0, 0.0));
}

#[test]
fn one_chosen_expert_has_no_pairs_and_no_chosen_entropy() {
    let report = fold(&geometry(4, 1, 1), &[constant_text("a", 0, 3, 1, &[2])], &ALL_ROWS).report();
    let layer = &report.layers[0];
    assert_eq!((layer.unique_pairs, layer.expected_unique_pairs), (0, 0.0));
    assert_eq!((layer.chosen_entropy_bits, layer.chosen_entropy_normalised), (Some(0.0), Some(0.0)));
    assert_eq!((layer.load_entropy_bits, layer.max_vio, layer.gini), (0.0, 3.0, 0.75));
}

#[test]
fn a_token_whose_weights_are_all_0_is_left_out_of_the_chosen_entropy_and_counted() {
    let mut text = constant_text("a", 0, 2, 1, &[0, 1]);
    text.choices[0][1].weights = vec![0.0, 0.0];
    let report = fold(&geometry(4, 2, 1), &[text], &ALL_ROWS).report();
    assert_eq!(
        (report.layers[0].chosen_entropy_bits, report.layers[0].weightless_tokens),
        (Some(1.0), Some(1))
    );
}

#[test]
fn no_tokens_give_a_report_of_zeros_that_json_can_hold() {
    let report = RoutingMetrics::new(&geometry(4, 2, 2), &ALL_ROWS).report();
    assert_eq!((report.tokens, report.samples, report.layers.len()), (0, 0, 2));
    let layer = &report.layers[0];
    assert_eq!((layer.coverage, layer.load_entropy_bits, layer.effective_experts), (0.0, 0.0, 0.0));
    assert_eq!((layer.max_vio, layer.cv, layer.gini, layer.expected_active_experts), (0.0, 0.0, 0.0, 0.0));
    // serde_json writes a number that is not finite as null, which an f64 field cannot be read from.
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<moetrace_metrics::MetricsReport>(&json).unwrap(), report);
}

/// `MaxVio`, the coefficient of variation, Gini (as mean difference of all pairs) and the entropy of some loads.
fn naive_balance(loads: &[f64]) -> [f64; 4] {
    let experts = loads.len() as f64;
    let total: f64 = loads.iter().sum();
    let mean = total / experts;
    let largest = loads.iter().copied().fold(0.0, f64::max);
    let variance = loads.iter().map(|n| (n - mean).powi(2)).sum::<f64>() / experts;
    let differences: f64 = loads.iter().flat_map(|a| loads.iter().map(move |b| (a - b).abs())).sum();
    let shares = loads.iter().filter(|&&n| n > 0.0).map(|n| n / total);
    let entropy = shares.map(|f| -f * f.log2()).sum();
    [largest / mean - 1.0, variance.sqrt() / mean, differences / (2.0 * experts * experts * mean), entropy]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn counts_and_means_equal_those_of_a_naive_loop(texts in any_texts(9, 4, 2)) {
        let report = fold(&geometry(9, 4, 2), &texts, &ALL_ROWS).report();
        let tokens: usize = texts.iter().map(Text::len).sum();
        prop_assert_eq!(report.tokens, tokens as u64);
        let mut tied = 0;
        for text in &texts {
            tied += (0..text.len()).filter(|&t| text.choices.iter().any(|layer| layer[t].margin == 0.0)).count();
        }
        prop_assert_eq!(report.rows_with_tie, Some(tied as u64));
        for (ordinal, layer) in report.layers.iter().enumerate() {
            let choices = || texts.iter().flat_map(|text| &text.choices[ordinal]);
            let mut pairs = BTreeSet::new();
            for choice in choices() {
                for a in &choice.experts {
                    pairs.extend(choice.experts.iter().filter(|b| a < b).map(|b| (*a, *b)));
                }
            }
            prop_assert_eq!(layer.unique_pairs, pairs.len() as u64);
            for (id, &load) in (0u16..).zip(&layer.loads) {
                let naive = choices().filter(|c| c.experts.contains(&id)).count() as u64;
                prop_assert_eq!(load, naive);
                let by_dataset: u64 = report.datasets.iter().map(|d| d.layers[ordinal].loads[usize::from(id)]).sum();
                prop_assert_eq!(by_dataset, naive);
            }
            prop_assert_eq!(layer.ties, Some(choices().filter(|c| c.margin == 0.0).count() as u64));
            let mean = choices().map(|c| f64::from(c.gate_entropy)).sum::<f64>() / tokens as f64;
            prop_assert!((layer.gate_entropy_bits.unwrap() - mean).abs() < 1e-12);
            let loads: Vec<f64> =
                (0u16..9).map(|id| choices().filter(|c| c.experts.contains(&id)).count() as f64).collect();
            let [max_vio, cv, gini, entropy] = naive_balance(&loads);
            prop_assert!((layer.max_vio - max_vio).abs() < 1e-12 && (layer.cv - cv).abs() < 1e-12);
            prop_assert!((layer.gini - gini).abs() < 1e-12);
            prop_assert!((layer.load_entropy_bits - entropy).abs() < 1e-12);
            prop_assert!((layer.effective_experts - entropy.exp2()).abs() < 1e-9);
            prop_assert!((layer.esft.token_ratio.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            prop_assert!((layer.esft.sample_token_ratio.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        }
    }
}

/// A text of one layer whose tokens choose these experts with these weights.
fn told(k: usize, tokens: &[(&[u16], &[f32])]) -> Text {
    let mut text = constant_text("a", 0, tokens.len(), 1, &vec![0; k]);
    for (choice, (experts, weights)) in text.choices[0].iter_mut().zip(tokens) {
        (choice.experts, choice.weights) = (experts.to_vec(), weights.to_vec());
    }
    text
}

/// The examples of docs/metrics.md.
#[test]
fn one_layer_and_its_esft_scores_by_hand() {
    let near = |found: f64, expected: f64| assert!((found - expected).abs() < 5e-4, "{found}, {expected}");
    let chosen = [0u16, 1, 0, 2, 0, 1, 2, 0].map(|id| [id]);
    let tokens: Vec<(&[u16], &[f32])> = chosen.iter().map(|id| (&id[..], &[0.5f32][..])).collect();
    let report = fold(&geometry(4, 1, 1), &[told(1, &tokens)], &ALL_ROWS).report();
    let layer = &report.layers[0];
    assert_eq!((layer.loads.as_slice(), layer.coverage), (&[4, 2, 2, 0][..], 0.75));
    assert_eq!((layer.load_entropy_bits, layer.max_vio, layer.gini), (1.5, 1.0, 0.375));
    near(layer.effective_experts, 2.828);
    near(layer.cv, 0.707);

    let tokens: [(&[u16], &[f32]); 2] = [(&[0, 1], &[0.6, 0.3]), (&[0, 2], &[0.5, 0.4])];
    let report = fold(&geometry(3, 2, 1), &[told(2, &tokens)], &ALL_ROWS).report();
    let esft = &report.layers[0].esft;
    assert_eq!(esft.token_ratio, [0.5, 0.25, 0.25]);
    let scores = esft.gate_score.as_ref().unwrap();
    scores.iter().zip([0.55, 0.15, 0.2]).for_each(|(found, expected)| near(*found, expected));
}
