use moetrace_metrics::{MetricsReport, MetricsSettings};

use crate::text::{Text, constant_text, fold, geometry};

/// Three texts; the first token of two of them is a BOS that alone goes to experts 2 and 3, with a tie.
fn texts() -> [Text; 3] {
    let mut texts = [
        constant_text("a", 0, 4, 2, &[0, 1]),
        constant_text("a", 1, 3, 2, &[1, 0]),
        constant_text("b", 0, 5, 2, &[0, 1]),
    ];
    for text in &mut texts[..2] {
        text.bos = true;
        for layer in &mut text.choices {
            layer[0].experts = vec![2, 3];
            layer[0].margin = 0.0;
            layer[0].gate_entropy = 0.0;
        }
    }
    texts
}

fn report(include_bos: bool) -> MetricsReport {
    fold(&geometry(4, 2, 2), &texts(), &MetricsSettings { include_bos, seed: 0 }).report()
}

#[test]
fn bos_rows_are_left_out_of_every_number_and_counted() {
    let report = report(false);
    assert_eq!((report.tokens, report.samples, report.bos_excluded), (10, 3, 2));
    assert_eq!(report.rows_with_tie, Some(0));
    for layer in &report.layers {
        assert_eq!(layer.loads, [10, 10, 0, 0]);
        assert_eq!((layer.unique_pairs, layer.active_experts, layer.ties), (1, 2, Some(0)));
        assert_eq!(layer.gate_entropy_bits, Some(1.0));
        assert_eq!(layer.esft.token_ratio, [0.5, 0.5, 0.0, 0.0]);
    }
    let datasets: Vec<_> =
        report.datasets.iter().map(|d| (d.name.as_str(), d.samples, d.tokens, d.bos_excluded)).collect();
    assert_eq!(datasets, [("a", 2, 5, 2), ("b", 1, 5, 0)]);
}

#[test]
fn bos_rows_count_when_asked_for() {
    let report = report(true);
    assert!(report.include_bos);
    assert_eq!((report.tokens, report.bos_excluded, report.rows_with_tie), (12, 0, Some(2)));
    for layer in &report.layers {
        assert_eq!(layer.loads, [10, 10, 2, 2]);
        assert_eq!((layer.unique_pairs, layer.ties), (2, Some(2)));
        assert!((layer.gate_entropy_bits.unwrap() - 10.0 / 12.0).abs() < 1e-14);
    }
}

#[test]
fn a_text_of_nothing_but_bos_is_a_sample_without_tokens() {
    let mut lone = constant_text("c", 9, 1, 2, &[0, 1]);
    lone.bos = true;
    let with = fold(&geometry(4, 2, 2), &[lone], &MetricsSettings::default()).report();
    assert_eq!((with.samples, with.tokens, with.bos_excluded), (1, 0, 1));
    assert_eq!(with.layers[0].esft.sample_token_ratio, [0.0; 4]);
}
