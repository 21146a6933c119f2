//! Traces of other tools, which lack weights, margins or entropies.

use moetrace_metrics::fidelity::{FidelitySettings, RoutingFidelity};
use moetrace_metrics::{MetricsError, MetricsReport, MetricsSettings, RoutingMetrics};
use moetrace_routing::{MoeOrdinal, RoutingPlanes, RoutingSink, RoutingView};

use crate::text::{Layer, batch, constant_text, geometry};

/// Counts one text, with of each layer's planes what `keep` leaves.
fn counted(keep: impl for<'a> Fn(usize, RoutingPlanes<'a>) -> RoutingPlanes<'a>) -> RoutingMetrics {
    let (geometry, text) = (geometry(4, 2, 2), constant_text("a", 0, 3, 2, &[2, 1]));
    let mut metrics = RoutingMetrics::new(&geometry, &MetricsSettings::default());
    metrics.begin(&batch(&[&text])).unwrap();
    for ordinal in geometry.ordinals() {
        let layer = Layer::new(&[&text], ordinal);
        let planes = keep(ordinal.index(), layer.planes());
        metrics.record(&RoutingView::new(&geometry, ordinal, 3, planes).unwrap()).unwrap();
    }
    metrics.end().unwrap();
    metrics
}

fn whole(_: usize, planes: RoutingPlanes<'_>) -> RoutingPlanes<'_> {
    planes
}

fn experts_only(_: usize, planes: RoutingPlanes<'_>) -> RoutingPlanes<'_> {
    RoutingPlanes { experts: planes.experts, ..RoutingPlanes::default() }
}

fn without_what_needs_more_than_ids(mut report: MetricsReport) -> MetricsReport {
    report.rows_with_tie = None;
    let overall = &mut report.overall;
    (overall.ties, overall.gate_entropy_bits, overall.gate_entropy_normalised) = (None, None, None);
    (overall.chosen_entropy_bits, overall.chosen_entropy_normalised) = (None, None);
    for layer in &mut report.layers {
        (layer.ties, layer.weightless_tokens) = (None, None);
        (layer.gate_entropy_bits, layer.gate_entropy_normalised) = (None, None);
        (layer.chosen_entropy_bits, layer.chosen_entropy_normalised) = (None, None);
        (layer.esft.gate_score, layer.esft.sample_gate_score) = (None, None);
    }
    report
}

#[test]
fn ids_alone_give_every_number_but_those_that_need_more() {
    let (bare, all) = (counted(experts_only).report(), counted(whole).report());
    assert_ne!(bare, all);
    assert_eq!(bare, without_what_needs_more_than_ids(all));
}

#[test]
fn a_number_is_absent_unless_every_token_has_what_it_needs() {
    let mut mixed = counted(whole);
    mixed.merge(counted(experts_only)).unwrap();
    assert_eq!(mixed.report(), without_what_needs_more_than_ids(mixed.report()));
    let one_layer = counted(|ordinal, planes| if ordinal == 0 { planes } else { experts_only(1, planes) });
    let report = one_layer.report();
    assert!(report.layers[0].ties.is_some() && report.layers[1].ties.is_none());
    assert_eq!(
        (report.rows_with_tie, report.overall.ties, report.overall.gate_entropy_bits),
        (None, None, None)
    );
}

#[test]
fn fidelity_without_weights_or_the_reference_s_margins_is_refused_by_name() {
    let (geometry, text) = (geometry(4, 2, 2), constant_text("a", 0, 3, 2, &[2, 1]));
    let layer = Layer::new(&[&text], MoeOrdinal(0));
    let refusal = |reference: RoutingPlanes<'_>, other: RoutingPlanes<'_>| {
        let view = |planes| RoutingView::new(&geometry, MoeOrdinal(0), 3, planes).unwrap();
        let mut fidelity = RoutingFidelity::new(&geometry, FidelitySettings::default());
        fidelity.begin(&batch(&[&text])).unwrap();
        fidelity.record(&view(reference), &view(other)).map_err(|error| match error {
            MetricsError::NotRecorded { plane, .. } => plane,
            other => unreachable!("{other}"),
        })
    };
    let all = layer.planes();
    assert_eq!(refusal(RoutingPlanes { margins: None, ..all }, all), Err("margins"));
    assert_eq!(refusal(RoutingPlanes { weights: None, ..all }, all), Err("weights"));
    assert_eq!(refusal(all, RoutingPlanes { weights: None, ..all }), Err("weights"));
    assert_eq!(refusal(all, RoutingPlanes { margins: None, gate_entropy: None, ..all }), Ok(()));
}
