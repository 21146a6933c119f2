use moetrace_metrics::{MetricsError, MetricsSettings, RoutingMetrics};
use moetrace_routing::{
    ExpertId, MoeOrdinal, RoutingGeometry, RoutingPlanes, RoutingSink, RoutingView, SampleId, SinkError,
    Span, TokenBatch, TokenId,
};

use crate::text::{constant_text, geometry, play};

fn metrics() -> RoutingMetrics {
    RoutingMetrics::new(&geometry(4, 2, 2), &MetricsSettings::default())
}

fn batch(n: usize) -> TokenBatch {
    let span = Span {
        sample: SampleId(0),
        dataset: "a".into(),
        label: None,
        start: 0,
        len: n,
        begins_with_bos: false,
    };
    TokenBatch::new(vec![TokenId(0); n], vec![0; n], vec![span]).unwrap()
}

/// Records one row that chose the `ids` with the first weight as given.
fn record(
    metrics: &mut RoutingMetrics,
    geometry: &RoutingGeometry,
    ordinal: u16,
    ids: &[u16],
    weight: f32,
    gate_entropy: f32,
) -> Result<(), SinkError> {
    let experts: Vec<ExpertId> = ids.iter().map(|&id| ExpertId(id)).collect();
    let mut weights = vec![0.25; ids.len()];
    weights[0] = weight;
    let planes = RoutingPlanes {
        experts: &experts,
        weights: Some(&weights),
        margins: Some(&[0.1]),
        gate_entropy: Some(&[gate_entropy]),
        ..RoutingPlanes::default()
    };
    metrics.record(&RoutingView::new(geometry, MoeOrdinal(ordinal), 1, planes).unwrap())
}

fn refusal(result: Result<(), SinkError>) -> MetricsError {
    *result.unwrap_err().into_inner().downcast::<MetricsError>().unwrap()
}

#[test]
fn calls_out_of_order_are_refused_and_named() {
    let g = geometry(4, 2, 2);
    assert_eq!(
        refusal(record(&mut metrics(), &g, 0, &[0, 1], 0.5, 1.0)),
        MetricsError::OutsidePass { found: MoeOrdinal(0) }
    );
    assert_eq!(refusal(metrics().end()), MetricsError::EndWithoutBegin);

    let mut open = metrics();
    open.begin(&batch(1)).unwrap();
    assert_eq!(refusal(open.clone().begin(&batch(1))), MetricsError::PassStillOpen { found: 0, expected: 2 });
    assert_eq!(
        refusal(record(&mut open.clone(), &g, 1, &[0, 1], 0.5, 1.0)),
        MetricsError::LayerOrder { found: MoeOrdinal(1), expected: 0 }
    );
    record(&mut open, &g, 0, &[0, 1], 0.5, 1.0).unwrap();
    assert_eq!(
        refusal(record(&mut open.clone(), &g, 0, &[0, 1], 0.5, 1.0)),
        MetricsError::LayerOrder { found: MoeOrdinal(0), expected: 1 }
    );
    assert_eq!(refusal(open.end()), MetricsError::LayersMissing { found: 1, expected: 2 });
}

#[test]
fn a_view_of_another_shape_is_refused_and_named() {
    let mut open = metrics();
    open.begin(&batch(2)).unwrap();
    assert!(matches!(
        refusal(record(&mut open, &geometry(4, 2, 2), 0, &[0, 1], 0.5, 1.0)),
        MetricsError::ViewShape { found: 1, expected: 2, .. }
    ));
    let mut open = metrics();
    open.begin(&batch(1)).unwrap();
    assert!(matches!(
        refusal(record(&mut open.clone(), &geometry(4, 3, 2), 0, &[0, 1, 2], 0.5, 1.0)),
        MetricsError::ViewShape { chosen: 3, k: 2, .. }
    ));
    assert!(matches!(
        refusal(record(&mut open, &geometry(9, 2, 2), 0, &[0, 8], 0.5, 1.0)),
        MetricsError::ExpertRange { row: 0, found: 8, experts: 4, .. }
    ));
}

#[test]
fn a_number_that_no_sum_could_hold_is_refused_and_named() {
    let g = geometry(4, 2, 2);
    let mut open = metrics();
    open.begin(&batch(1)).unwrap();
    assert!(matches!(
        refusal(record(&mut open.clone(), &g, 0, &[0, 1], 1e9, 1.0)),
        MetricsError::TooLarge { row: 0, plane: "weight", found: 1e9, .. }
    ));
    assert!(matches!(
        refusal(record(&mut open, &g, 0, &[0, 1], 0.5, f32::MAX)),
        MetricsError::TooLarge { row: 0, plane: "gate entropy", .. }
    ));
}

#[test]
fn totals_that_do_not_belong_together_are_not_merged_and_nothing_changes() {
    let g = geometry(4, 2, 2);
    let mut ours = metrics();
    play(&g, &[&constant_text("a", 0, 3, 2, &[0, 1])], &mut ours).unwrap();
    let before = ours.report();

    for other in [geometry(5, 2, 2), geometry(4, 1, 2), geometry(4, 2, 3)] {
        let other = RoutingMetrics::new(&other, &MetricsSettings::default());
        assert!(matches!(ours.merge(other), Err(MetricsError::GeometryMismatch { .. })));
    }
    let settings = MetricsSettings { include_bos: true, seed: 0 };
    assert_eq!(
        ours.merge(RoutingMetrics::new(&g, &settings)),
        Err(MetricsError::SettingsMismatch { found: settings, expected: MetricsSettings::default() })
    );
    let mut open = metrics();
    open.begin(&batch(1)).unwrap();
    assert_eq!(ours.merge(open), Err(MetricsError::MergeInsidePass { found: 0, expected: 2 }));
    assert_eq!(ours.report(), before);
}

#[test]
fn an_empty_pass_counts_nothing() {
    let mut ours = metrics();
    play(&geometry(4, 2, 2), &[], &mut ours).unwrap();
    assert_eq!(ours.report(), metrics().report());
}
