use moetrace_metrics::{AuxiliaryLossMetrics, AuxiliaryLossReport, MetricsSettings};
use moetrace_routing::{MoeOrdinal, RoutingPlanes, RoutingSink as _, RoutingView};
use proptest::prelude::*;

use crate::text::{Layer, Text, any_texts, batch, geometry};

const E: usize = 5;
const K: usize = 2;

/// A logit for each expert of each row, made up from the choices.
fn logits(texts: &[&Text]) -> Vec<f32> {
    let choices = texts.iter().flat_map(|text| &text.choices[0]);
    let of = |c: &crate::text::Choice| {
        let first = c.gate_entropy;
        (0..E as u16)
            .map(move |e| if c.experts.contains(&e) { 1.0 + first } else { f32::from(e) * 0.1 })
            .collect::<Vec<_>>()
    };
    choices.flat_map(of).collect()
}

fn play(texts: &[&Text], sink: &mut AuxiliaryLossMetrics, recorded: bool) {
    play_with(texts, sink, recorded.then_some(logits(texts).as_slice()));
}

fn play_with(texts: &[&Text], sink: &mut AuxiliaryLossMetrics, logits: Option<&[f32]>) {
    let geometry = geometry(E, K, 1);
    let layer = Layer::new(texts, MoeOrdinal(0));
    let planes = RoutingPlanes { logits, ..layer.planes() };
    let rows = batch(texts).len();
    sink.begin(&batch(texts)).unwrap();
    sink.record(&RoutingView::new(&geometry, MoeOrdinal(0), rows, planes).unwrap()).unwrap();
    sink.end().unwrap();
}

fn fold(texts: &[Text]) -> Option<AuxiliaryLossReport> {
    let mut sink = AuxiliaryLossMetrics::new(&geometry(E, K, 1), &MetricsSettings::default());
    for text in texts {
        play(&[text], &mut sink, true);
    }
    sink.report()
}

/// The loss of some rows by its definition.
fn naive(rows: &[(&[u16], Vec<f64>)]) -> f64 {
    let t = rows.len() as f64;
    let each = (0..E).map(|e| {
        let f = rows.iter().filter(|(set, _)| set.contains(&(e as u16))).count() as f64 / (K as f64 * t);
        f * rows.iter().map(|(_, p)| p[e]).sum::<f64>() / t
    });
    E as f64 * each.sum::<f64>()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn losses_equal_their_definition_over_all_tokens_and_over_each_text(texts in any_texts(E, K, 1)) {
        let mut all: Vec<(&[u16], Vec<f64>)> = Vec::new();
        let mut of_texts = Vec::new();
        for text in &texts {
            let logits = logits(&[text]);
            let rows = text.choices[0].iter().zip(logits.chunks(E)).skip(usize::from(text.bos));
            let rows: Vec<_> = rows.map(|(choice, logits)| {
                let raised: Vec<f64> = logits.iter().map(|&l| f64::from(l).exp()).collect();
                let sum: f64 = raised.iter().sum();
                (choice.experts.as_slice(), raised.into_iter().map(|x| x / sum).collect::<Vec<_>>())
            }).collect();
            if !rows.is_empty() {
                of_texts.push(naive(&rows));
            }
            all.extend(rows);
        }
        match fold(&texts) {
            None => prop_assert!(all.is_empty()),
            Some(report) => {
                let layer = &report.layers[0];
                prop_assert!((layer.loss - naive(&all)).abs() < 1e-9);
                prop_assert!((layer.sequence_loss - of_texts.iter().sum::<f64>() / of_texts.len() as f64).abs() < 1e-9);
                prop_assert!((layer.mean_probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-9);
                prop_assert!(layer.token_information_bits <= (E as f64).log2());
            }
        }
    }

    #[test]
    fn what_experts_are_called_changes_nothing(
        texts in any_texts(E, K, 1),
        names in Just((0..E as u16).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        // Expert e of the first is called names[e] in the second; its logit goes with it.
        let mut renamed = AuxiliaryLossMetrics::new(&geometry(E, K, 1), &MetricsSettings::default());
        for text in &texts {
            let mut other = text.clone();
            other.choices[0].iter_mut().flat_map(|c| &mut c.experts).for_each(|e| *e = names[usize::from(*e)]);
            let mut moved = logits(&[text]);
            for (row, of) in moved.chunks_mut(E).zip(logits(&[text]).chunks(E)) {
                names.iter().zip(of).for_each(|(&name, &logit)| row[usize::from(name)] = logit);
            }
            play_with(&[&other], &mut renamed, Some(&moved));
        }
        let (Some(before), Some(after)) = (fold(&texts), renamed.report()) else {
            prop_assert_eq!(fold(&texts), renamed.report());
            return Ok(());
        };
        let (before, after) = (&before.layers[0], &after.layers[0]);
        prop_assert!((before.loss - after.loss).abs() < 1e-9);
        prop_assert!((before.sequence_loss - after.sequence_loss).abs() < 1e-9);
        prop_assert!((before.token_information_bits - after.token_information_bits).abs() < 1e-9);
        for (e, &name) in names.iter().enumerate() {
            let after = after.mean_probabilities[usize::from(name)];
            prop_assert!((before.mean_probabilities[e] - after).abs() < 1e-9);
        }
    }

    #[test]
    fn any_split_gives_the_same_report(texts in any_texts(E, K, 1), cut in 0usize..12, pass_len in 1usize..4) {
        let (a, b) = texts.split_at(cut.min(texts.len()));
        let part = |texts: &[Text]| {
            let mut sink = AuxiliaryLossMetrics::new(&geometry(E, K, 1), &MetricsSettings::default());
            texts.chunks(pass_len).for_each(|pass| play(&pass.iter().collect::<Vec<_>>(), &mut sink, true));
            sink
        };
        let mut merged = part(b);
        merged.merge(&part(a)).unwrap();
        prop_assert_eq!(merged.report(), fold(&texts));
    }
}

#[test]
fn a_token_without_logits_makes_the_loss_unknown() {
    let text = crate::text::constant_text("a", 0, 3, 1, &[0, 1]);
    let mut sink = AuxiliaryLossMetrics::new(&geometry(E, K, 1), &MetricsSettings::default());
    assert_eq!(sink.report(), None);
    play(&[&text], &mut sink, true);
    assert!(sink.report().is_some());
    play(&[&text], &mut sink, false);
    assert_eq!(sink.report(), None);
}

#[test]
fn the_worked_example_of_the_documentation() {
    let geometry = geometry(2, 1, 1);
    let mut sink = AuxiliaryLossMetrics::new(&geometry, &MetricsSettings::default());
    for (id, expert, p) in [(0, 0, [0.8f32, 0.2]), (1, 1, [0.4, 0.6])] {
        let text = crate::text::constant_text("a", id, 1, 1, &[expert]);
        let layer = Layer::new(&[&text], MoeOrdinal(0));
        let logits = p.map(f32::ln);
        let planes = RoutingPlanes { logits: Some(&logits), ..layer.planes() };
        sink.begin(&batch(&[&text])).unwrap();
        sink.record(&RoutingView::new(&geometry, MoeOrdinal(0), 1, planes).unwrap()).unwrap();
        sink.end().unwrap();
    }
    let report = sink.report().unwrap();
    let layer = &report.layers[0];
    // Logits are f32.
    assert!((layer.loss - 1.0).abs() < 1e-6 && (layer.sequence_loss - 1.4).abs() < 1e-6);
    let entropy = |p: f64| -p * p.log2() - (1.0 - p) * (1.0 - p).log2();
    let information = entropy(0.6) - f64::midpoint(entropy(0.8), entropy(0.4));
    assert!((layer.token_information_bits - information).abs() < 1e-6);
}
