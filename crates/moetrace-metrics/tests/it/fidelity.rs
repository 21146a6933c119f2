//! Two routers over the same tokens, against closed forms and a loop over sets.

use std::collections::BTreeSet;

use moetrace_metrics::MetricsError;
use moetrace_metrics::fidelity::{
    AgreementReport, FidelityReport, FidelitySettings, MARGIN_EDGES, RoutingFidelity,
};
use moetrace_routing::{MoeOrdinal, RoutingGeometry, RoutingPlanes, RoutingView};
use proptest::prelude::*;

use crate::text::{Layer, Text, any_choice, any_texts, batch, constant_text, geometry};

const ALL_ROWS: FidelitySettings = FidelitySettings { include_bos: true };

/// Plays pairs of texts as one pass.
fn play(geometry: &RoutingGeometry, pairs: &[&(Text, Text)], into: &mut RoutingFidelity) {
    let (a, b): (Vec<&Text>, Vec<&Text>) = pairs.iter().map(|(a, b)| (a, b)).unzip();
    into.begin(&batch(&a)).unwrap();
    for ordinal in geometry.ordinals() {
        let (a, b) = (Layer::new(&a, ordinal), Layer::new(&b, ordinal));
        into.record(&a.view(geometry), &b.view(geometry)).unwrap();
    }
    into.end().unwrap();
}

/// All pairs, one pass each.
fn fold(geometry: &RoutingGeometry, pairs: &[(Text, Text)], settings: FidelitySettings) -> RoutingFidelity {
    let mut fidelity = RoutingFidelity::new(geometry, settings);
    for pair in pairs {
        play(geometry, &[pair], &mut fidelity);
    }
    fidelity
}

/// Texts beside the same texts, of which another router chose about half of the sets differently.
fn any_pairs(experts: usize, chosen: usize, layers: usize) -> impl Strategy<Value = Vec<(Text, Text)>> {
    any_texts(experts, chosen, layers)
        .prop_flat_map(move |texts| {
            let others: Vec<_> = texts
                .iter()
                .map(|text| {
                    let token = proptest::option::of(any_choice(experts, chosen));
                    proptest::collection::vec(proptest::collection::vec(token, text.len()), layers)
                })
                .collect();
            (Just(texts), others)
        })
        .prop_map(|(texts, others)| {
            let pair = |(text, others): (Text, Vec<Vec<Option<_>>>)| {
                let mut other = text.clone();
                for (layer, others) in other.choices.iter_mut().zip(others) {
                    for (choice, another) in layer.iter_mut().zip(others) {
                        *choice = another.unwrap_or_else(|| choice.clone());
                    }
                }
                (text, other)
            };
            texts.into_iter().zip(others).map(pair).collect()
        })
}

fn swapped(pairs: &[(Text, Text)]) -> Vec<(Text, Text)> {
    pairs.iter().map(|(a, b)| (b.clone(), a.clone())).collect()
}

fn is_perfect(agreement: &AgreementReport) -> bool {
    let rates = [
        agreement.set_overlap,
        agreement.jaccard,
        agreement.exact_set_rate,
        agreement.rank_1_agreement,
        agreement.weight_overlap_share,
    ];
    rates == [1.0; 5] && agreement.weight_overlap == agreement.reference_weight
}

/// Everything about one layer by sets; rows that `keep` wants.
fn by_sets(pairs: &[(Text, Text)], ordinal: usize, keep: impl Fn(f32) -> bool) -> [f64; 5] {
    let (mut rows, mut sums) = (0.0, [0.0; 5]);
    for (a, b) in pairs {
        for (x, y) in a.choices[ordinal].iter().zip(&b.choices[ordinal]).filter(|(x, _)| keep(x.margin)) {
            let (p, q) =
                (x.experts.iter().collect::<BTreeSet<_>>(), y.experts.iter().collect::<BTreeSet<_>>());
            let weight = |c: &crate::text::Choice, id: &u16| {
                f64::from(c.weights[c.experts.iter().position(|e| e == id).unwrap()])
            };
            let overlap: f64 = p.intersection(&q).map(|id| weight(x, id).min(weight(y, id))).sum();
            let shared = p.intersection(&q).count() as f64;
            let row = [
                shared / p.len() as f64,
                shared / p.union(&q).count() as f64,
                f64::from(u8::from(p == q)),
                f64::from(u8::from(x.experts[0] == y.experts[0])),
                overlap,
            ];
            sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
            rows += 1.0;
        }
    }
    sums.map(|sum| if rows == 0.0 { 0.0 } else { sum / rows })
}

fn close(found: &AgreementReport, expected: [f64; 5]) -> bool {
    let found = [
        found.set_overlap,
        found.jaccard,
        found.exact_set_rate,
        found.rank_1_agreement,
        found.weight_overlap,
    ];
    found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn rates_equal_those_of_a_loop_over_sets(pairs in any_pairs(9, 4, 2)) {
        let report = fold(&geometry(9, 4, 2), &pairs, ALL_ROWS).report();
        for (ordinal, layer) in report.layers.iter().enumerate() {
            prop_assert!(close(&layer.all, by_sets(&pairs, ordinal, |_| true)), "{layer:?}");
            prop_assert!(close(&layer.tied, by_sets(&pairs, ordinal, |m| m == 0.0)), "{layer:?}");
            prop_assert!(close(&layer.untied, by_sets(&pairs, ordinal, |m| m > 0.0)), "{layer:?}");
            prop_assert_eq!(layer.tied.rows + layer.untied.rows, report.tokens);
            for bin in &layer.margin_bins {
                let within = |m: f32| m > 0.0 && m >= bin.from && bin.below.is_none_or(|below| m < below);
                prop_assert!(close(&bin.agreement, by_sets(&pairs, ordinal, within)), "{bin:?}");
            }
            prop_assert_eq!(layer.margin_bins.iter().map(|b| b.agreement.rows).sum::<u64>(), layer.untied.rows);
        }
        let (mut differing, mut first) = (0, [0; 2]);
        for (a, b) in &pairs {
            for token in 0..a.len() {
                let set = |text: &Text, l: usize| text.choices[l][token].experts.iter().copied().collect::<BTreeSet<_>>();
                if let Some(layer) = (0..2).find(|&l| set(a, l) != set(b, l)) {
                    differing += 1;
                    first[layer] += 1;
                }
            }
        }
        prop_assert_eq!(report.divergence.differing, differing);
        prop_assert_eq!(report.divergence.first_layer.iter().map(|f| f.tokens).collect::<Vec<_>>(), first);
    }

    #[test]
    fn what_is_symmetric_is_the_same_to_the_last_bit_with_the_runs_exchanged(pairs in any_pairs(7, 3, 2)) {
        let geometry = geometry(7, 3, 2);
        let (ab, ba) = (
            fold(&geometry, &pairs, ALL_ROWS).report(),
            fold(&geometry, &swapped(&pairs), ALL_ROWS).report(),
        );
        for (x, y) in ab.layers.iter().zip(&ba.layers) {
            let exchanged = AgreementReport {
                reference_weight: y.all.other_weight,
                other_weight: y.all.reference_weight,
                ..y.all
            };
            prop_assert_eq!(x.all, exchanged);
        }
        prop_assert_eq!(ab.divergence, ba.divergence);
    }

    #[test]
    fn any_split_into_parts_and_passes_merged_in_any_order_gives_the_same_report(
        pairs in any_pairs(7, 3, 2),
        parts in proptest::collection::vec(0usize..3, 12),
        order in Just([0usize, 1, 2]).prop_shuffle(),
        pass_len in 1usize..5,
    ) {
        let geometry = geometry(7, 3, 2);
        let settings = FidelitySettings::default();
        let mut merged = RoutingFidelity::new(&geometry, settings);
        for part in order {
            let mine: Vec<_> = pairs.iter().zip(&parts).filter(|(_, p)| **p == part).map(|(pair, _)| pair).collect();
            let mut shard = RoutingFidelity::new(&geometry, settings);
            for pass in mine.chunks(pass_len) {
                play(&geometry, pass, &mut shard);
            }
            merged.merge(&shard).unwrap();
        }
        prop_assert_eq!(merged.report(), fold(&geometry, &pairs, settings).report());
    }

    #[test]
    fn a_run_against_itself_agrees_in_everything_whatever_its_shape(
        (experts, texts) in prop_oneof![
            any_texts(7, 3, 2).prop_map(|t| (7, t)),
            any_texts(4, 4, 2).prop_map(|t| (4, t)),
            any_texts(1, 1, 2).prop_map(|t| (1, t)),
            any_texts(5, 1, 2).prop_map(|t| (5, t)),
        ],
    ) {
        let geometry = geometry(experts, texts[0].choices[0][0].experts.len(), 2);
        let pairs: Vec<_> = texts.into_iter().map(|text| (text.clone(), text)).collect();
        let report = fold(&geometry, &pairs, ALL_ROWS).report();
        for layer in &report.layers {
            let all = layer.all;
            prop_assert!(is_perfect(&all) || all.reference_weight == 0.0, "{all:?}");
            prop_assert_eq!(all.exact_sets, report.tokens);
        }
        prop_assert_eq!(report.divergence.differing, 0);
        prop_assert!(report.divergence.first_layer.iter().all(|f| f.tokens == 0));
    }
}

#[test]
fn disjoint_sets_agree_in_nothing_and_part_in_the_first_layer() {
    let g = geometry(8, 2, 3);
    let pair = (constant_text("a", 0, 5, 3, &[0, 1]), constant_text("a", 0, 5, 3, &[2, 3]));
    let report = fold(&g, &[pair], ALL_ROWS).report();
    for layer in &report.layers {
        let a = layer.all;
        assert_eq!((a.rows, a.set_overlap, a.jaccard, a.exact_set_rate), (5, 0.0, 0.0, 0.0));
        assert_eq!((a.rank_1_agreement, a.weight_overlap, a.weight_overlap_share), (0.0, 0.0, 0.0));
        assert_eq!((a.reference_weight, a.other_weight), (1.0, 1.0));
    }
    assert_eq!((report.divergence.differing, report.divergence.differing_rate), (5, 1.0));
    assert_eq!(
        report.divergence.first_layer.iter().map(|f| (f.layer, f.tokens)).collect::<Vec<_>>(),
        [(1, 5), (2, 0), (3, 0)]
    );
    assert_eq!(report.overall.expected_set_overlap, 0.25);
}

#[test]
fn a_tie_in_the_reference_is_counted_apart_and_one_in_the_other_is_not() {
    let g = geometry(8, 2, 2);
    let (mut a, mut b) = (constant_text("a", 0, 4, 2, &[0, 1]), constant_text("a", 0, 4, 2, &[0, 1]));
    // Row 1 ties in layer 1 and differs there; row 2 differs without a tie, in layer 2.
    a.choices[0][1].margin = 0.0;
    b.choices[0][1].experts = vec![0, 5];
    b.choices[1][2].experts = vec![0, 5];
    b.choices[1][3].margin = 0.0;
    let report = fold(&g, &[(a, b)], ALL_ROWS).report();
    let first = &report.layers[0];
    assert_eq!((first.tied.rows, first.tied.exact_sets, first.untied.exact_set_rate), (1, 0, 1.0));
    assert_eq!(first.all.exact_set_rate, 0.75);
    assert_eq!((report.layers[1].tied.rows, report.layers[1].untied.exact_sets), (0, 3));
    assert_eq!((report.tokens_with_tie, report.overall.ties), (1, 1));
    assert_eq!((report.divergence.differing, report.untied_divergence.differing), (2, 1));
    assert_eq!((report.untied_divergence.tokens, report.untied_divergence.first_layer[1].tokens), (3, 1));
}

#[test]
fn margins_fall_into_the_bin_of_their_edge_and_bins_of_layers_are_pooled() {
    let g = geometry(8, 2, 2);
    let mut a = constant_text("a", 0, 8, 2, &[0, 1]);
    let margins = [0.000_5, MARGIN_EDGES[0], MARGIN_EDGES[1], 0.02, 0.05, 0.2, MARGIN_EDGES[5], 0.9];
    for layer in &mut a.choices {
        layer.iter_mut().zip(margins).for_each(|(choice, margin)| choice.margin = margin);
    }
    let mut b = a.clone();
    b.choices[0][7].experts = vec![0, 2];
    let report = fold(&g, &[(a, b)], ALL_ROWS).report();
    let rows = |bins: &[moetrace_metrics::fidelity::MarginBin]| -> Vec<u64> {
        bins.iter().map(|b| b.agreement.rows).collect()
    };
    assert_eq!(rows(&report.layers[0].margin_bins), [1, 1, 1, 1, 1, 1, 2]);
    let pooled = &report.overall.margin_bins;
    assert_eq!(rows(pooled), [2, 2, 2, 2, 2, 2, 4]);
    assert_eq!((pooled[6].agreement.exact_set_rate, pooled[6].agreement.set_overlap), (0.75, 0.875));
    assert_eq!((pooled[0].from, pooled[0].below, pooled[6].below), (0.0, Some(0.001), None));
}

#[test]
fn choosing_every_expert_has_no_tie_and_no_margin_bins() {
    let mut text = constant_text("a", 0, 3, 1, &[1, 0]);
    text.choices[0].iter_mut().for_each(|choice| choice.margin = 0.0);
    let mut other = text.clone();
    other.choices[0][0].experts = vec![0, 1];
    let report = fold(&geometry(2, 2, 1), &[(text, other)], ALL_ROWS).report();
    let layer = &report.layers[0];
    assert_eq!((layer.tied.rows, layer.all.rows, report.tokens_with_tie), (0, 3, 0));
    assert_eq!((layer.all.exact_set_rate, layer.all.rank_1_agreement), (1.0, 2.0 / 3.0));
    assert!(layer.margin_bins.is_empty() && report.overall.margin_bins.is_empty());
}

#[test]
fn bos_rows_are_left_out_and_counted_unless_they_are_asked_for() {
    let g = geometry(4, 2, 1);
    let mut a = constant_text("a", 0, 3, 1, &[0, 1]);
    a.bos = true;
    let mut b = a.clone();
    b.choices[0][0].experts = vec![2, 3];
    let pairs = [(a, b)];
    let without = fold(&g, &pairs, FidelitySettings::default()).report();
    assert_eq!((without.tokens, without.bos_excluded, without.samples), (2, 1, 1));
    assert_eq!(without.layers[0].all.exact_set_rate, 1.0);
    let with = fold(&g, &pairs, ALL_ROWS).report();
    assert_eq!((with.tokens, with.bos_excluded, with.include_bos), (3, 0, true));
    assert_eq!(with.layers[0].all.exact_sets, 2);
}

/// One row of one layer with logits and losses.
fn with_planes(logits: (&[f32], &[f32]), nll: (&[f32], &[f32])) -> Result<FidelityReport, MetricsError> {
    let g = geometry(4, 2, 1);
    let text = constant_text("a", 0, 2, 1, &[0, 1]);
    let layer = Layer::new(&[&text], MoeOrdinal(0));
    let mut fidelity = RoutingFidelity::new(&g, ALL_ROWS);
    fidelity.begin(&batch(&[&text])).unwrap();
    let planes = |logits, nll| RoutingPlanes { logits: Some(logits), nll: Some(nll), ..layer.planes() };
    let (a, b) = (planes(logits.0, nll.0), planes(logits.1, nll.1));
    let view = |planes| RoutingView::new(&g, MoeOrdinal(0), 2, planes).unwrap();
    fidelity.record(&view(a), &view(b))?;
    fidelity.end().unwrap();
    Ok(fidelity.report())
}

#[test]
fn logits_and_losses_of_both_give_divergence_error_and_delta() {
    let (even, sure) = ([1.0f32; 8], [60.0f32, 0.0, 0.0, 0.0, 60.0, 0.0, 0.0, 0.0]);
    let report = with_planes((&sure, &even), (&[f32::NAN, 2.0], &[f32::NAN, 2.5])).unwrap();
    let logits = report.layers[0].logits.unwrap();
    assert_eq!(logits.rows, 2);
    assert!((logits.kl_bits - 2.0).abs() < 1e-12, "{logits:?}");
    assert!((logits.rmse - ((59f64.powi(2) + 3.0) / 4.0).sqrt()).abs() < 1e-12, "{logits:?}");
    assert_eq!(report.overall.kl_bits.unwrap().max, logits.kl_bits);
    let nll = report.nll.unwrap();
    assert_eq!((nll.tokens, nll.reference, nll.other, nll.delta), (1, 2.0, 2.5, 0.5));
    // What is not a number never gets here: no view holds it.
    let refused = with_planes((&sure, &[f32::MAX; 8]), (&[1.0; 2], &[1.0; 2]));
    assert!(matches!(refused, Err(MetricsError::TooLarge { row: 0, plane: "router logit", .. })));
    let refused = with_planes((&sure, &even), (&[1.0, -3.0], &[1.0; 2]));
    assert!(matches!(refused, Err(MetricsError::TooLarge { row: 1, plane: "token loss", .. })));
}

#[test]
fn what_was_not_recorded_is_absent_and_a_report_survives_json() {
    let g = geometry(4, 2, 2);
    let text = constant_text("a", 0, 3, 2, &[0, 1]);
    let report = fold(&g, &[(text.clone(), text)], ALL_ROWS).report();
    assert!(report.nll.is_none() && report.overall.kl_bits.is_none() && report.layers[0].logits.is_none());
    let empty = RoutingFidelity::new(&g, ALL_ROWS).report();
    assert_eq!(
        (empty.tokens, empty.layers[0].all.set_overlap, empty.divergence.differing_rate),
        (0, 0.0, 0.0)
    );
    for report in [report, empty] {
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<FidelityReport>(&json).unwrap(), report);
    }
}

#[test]
fn calls_out_of_order_and_totals_of_other_kinds_are_refused() {
    let g = geometry(4, 2, 2);
    let text = constant_text("a", 0, 2, 2, &[0, 1]);
    let layers = [MoeOrdinal(0), MoeOrdinal(1)].map(|ordinal| Layer::new(&[&text], ordinal));
    let (first, second) = (layers[0].view(&g), layers[1].view(&g));
    let mut fidelity = RoutingFidelity::new(&g, ALL_ROWS);
    assert!(matches!(fidelity.record(&first, &first), Err(MetricsError::OutsidePass { .. })));
    assert_eq!(fidelity.end(), Err(MetricsError::EndWithoutBegin));
    fidelity.begin(&batch(&[&text])).unwrap();
    assert!(matches!(fidelity.begin(&batch(&[&text])), Err(MetricsError::PassStillOpen { .. })));
    assert!(matches!(fidelity.record(&first, &second), Err(MetricsError::LayerPair { .. })));
    assert!(matches!(fidelity.record(&second, &second), Err(MetricsError::LayerOrder { .. })));
    let shorter = constant_text("a", 0, 1, 2, &[0, 1]);
    let shorter = Layer::new(&[&shorter], MoeOrdinal(0));
    assert!(matches!(fidelity.record(&first, &shorter.view(&g)), Err(MetricsError::ViewShape { .. })));
    let beyond = constant_text("a", 0, 2, 2, &[0, 7]);
    let (beyond, wide) = (Layer::new(&[&beyond], MoeOrdinal(0)), geometry(8, 2, 2));
    assert!(matches!(
        fidelity.record(&first, &beyond.view(&wide)),
        Err(MetricsError::ExpertRange { found: 7, experts: 4, .. })
    ));
    fidelity.record(&first, &first).unwrap();
    let mut fresh = RoutingFidelity::new(&g, ALL_ROWS);
    assert!(matches!(fresh.merge(&fidelity), Err(MetricsError::MergeInsidePass { .. })));
    assert!(matches!(fidelity.end(), Err(MetricsError::LayersMissing { found: 1, expected: 2 })));
    let other = RoutingFidelity::new(&geometry(5, 2, 2), ALL_ROWS);
    assert!(matches!(fresh.merge(&other), Err(MetricsError::GeometryMismatch { .. })));
    let other = RoutingFidelity::new(&g, FidelitySettings::default());
    assert!(matches!(fresh.merge(&other), Err(MetricsError::BosMismatch { .. })));
}
