use moetrace_routing::{
    ExpertId, HiddenRows, LayerIndex, MoeOrdinal, RoutingError, RoutingGeometry, RoutingPlanes, RoutingView,
};

fn geometry() -> RoutingGeometry {
    RoutingGeometry::new(4, 2, 3, vec![LayerIndex(1), LayerIndex(2)]).unwrap()
}

const EXPERTS: [ExpertId; 4] = [ExpertId(3), ExpertId(0), ExpertId(1), ExpertId(2)];
const WEIGHTS: [f32; 4] = [0.5, 0.25, 0.4, 0.4];
const ROWS: [f32; 2] = [0.1, 0.0];

fn planes() -> RoutingPlanes<'static> {
    RoutingPlanes {
        experts: &EXPERTS,
        weights: Some(&WEIGHTS),
        margins: Some(&ROWS),
        gate_entropy: Some(&ROWS),
        ..RoutingPlanes::default()
    }
}

fn refusal(planes: RoutingPlanes<'_>) -> RoutingError {
    RoutingView::new(&geometry(), MoeOrdinal(1), 2, planes).unwrap_err()
}

#[test]
fn a_sound_view_keeps_what_it_was_given() {
    let view = RoutingView::new(&geometry(), MoeOrdinal(1), 2, planes()).unwrap();
    assert_eq!((view.layer(), view.rows(), view.chosen()), (LayerIndex(2), 2, 2));
    assert_eq!(view.experts(), EXPERTS);
    assert_eq!(view.weights(), Some(&WEIGHTS[..]));
}

#[test]
fn weights_margins_and_entropies_may_be_absent_and_ids_are_checked_all_the_same() {
    let experts_only = RoutingPlanes { experts: &EXPERTS, ..RoutingPlanes::default() };
    let view = RoutingView::new(&geometry(), MoeOrdinal(1), 2, experts_only).unwrap();
    assert_eq!((view.weights(), view.margins(), view.gate_entropy()), (None, None, None));
    let twice = [ExpertId(3), ExpertId(0), ExpertId(1), ExpertId(1)];
    assert!(matches!(
        refusal(RoutingPlanes { experts: &twice, ..experts_only }),
        RoutingError::ExpertTwice { row: 1, expert: 1, .. }
    ));
}

#[test]
fn each_broken_plane_is_refused_with_its_row() {
    let twice = [ExpertId(3), ExpertId(0), ExpertId(1), ExpertId(1)];
    assert!(matches!(
        refusal(RoutingPlanes { experts: &twice, ..planes() }),
        RoutingError::ExpertTwice { row: 1, expert: 1, .. }
    ));
    let outside = [ExpertId(4), ExpertId(0), ExpertId(1), ExpertId(2)];
    assert!(matches!(
        refusal(RoutingPlanes { experts: &outside, ..planes() }),
        RoutingError::ExpertRange { row: 0, found: 4, .. }
    ));
    let rising = [0.5, 0.25, 0.4, 0.41];
    assert!(matches!(
        refusal(RoutingPlanes { weights: Some(&rising), ..planes() }),
        RoutingError::WeightOrder { row: 1, rank: 1, .. }
    ));
    for bad in [f32::NAN, f32::INFINITY, -0.1] {
        let weights = [0.5, 0.25, bad, 0.0];
        assert!(matches!(
            refusal(RoutingPlanes { weights: Some(&weights), ..planes() }),
            RoutingError::NotFinite { row: 1, plane: "weight", .. }
        ));
        let column = [0.0, bad];
        assert!(matches!(
            refusal(RoutingPlanes { margins: Some(&column), ..planes() }),
            RoutingError::NotFinite { row: 1, plane: "margin", .. }
        ));
        assert!(matches!(
            refusal(RoutingPlanes { gate_entropy: Some(&column), ..planes() }),
            RoutingError::NotFinite { row: 1, plane: "gate entropy", .. }
        ));
    }
}

#[test]
fn wrong_lengths_are_refused_by_name() {
    let short = [0.0f32; 1];
    let hidden = HiddenRows { rows: &[0], values: &short };
    let cases = [
        ("experts", RoutingPlanes { experts: &EXPERTS[..3], ..planes() }),
        ("weights", RoutingPlanes { weights: Some(&WEIGHTS[..3]), ..planes() }),
        ("margins", RoutingPlanes { margins: Some(&short), ..planes() }),
        ("gate entropy", RoutingPlanes { gate_entropy: Some(&short), ..planes() }),
        ("logits", RoutingPlanes { logits: Some(&short), ..planes() }),
        ("shared gate", RoutingPlanes { shared_gate: Some(&short), ..planes() }),
        ("hidden states", RoutingPlanes { hidden: Some(hidden), ..planes() }),
        ("token loss", RoutingPlanes { nll: Some(&short), ..planes() }),
    ];
    for (name, planes) in cases {
        let error = refusal(planes);
        assert!(matches!(error, RoutingError::PlaneLength { plane, .. } if plane == name), "{error}");
    }
    let outside = HiddenRows { rows: &[2], values: &[0.0; 3] };
    assert!(matches!(
        refusal(RoutingPlanes { hidden: Some(outside), ..planes() }),
        RoutingError::PlaneLength { found: 2, .. }
    ));
    let error = RoutingView::new(&geometry(), MoeOrdinal(2), 2, planes()).unwrap_err();
    assert!(matches!(error, RoutingError::Ordinal { found: 2, layers: 2 }));
}

#[test]
fn optional_planes_are_checked_as_well() {
    let (logits, gates, losses) = ([0.5f32; 8], [0.5f32; 2], [f32::NAN, -0.5]);
    let hidden = HiddenRows { rows: &[0, 1], values: &[-1.0; 6] };
    let sound = RoutingPlanes {
        logits: Some(&logits),
        shared_gate: Some(&gates),
        hidden: Some(hidden),
        nll: Some(&losses),
        ..planes()
    };
    assert!(RoutingView::new(&geometry(), MoeOrdinal(1), 2, sound).is_ok());
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let (mut logits, mut values) = (logits, [0.0; 6]);
        (logits[5], values[4]) = (bad, bad);
        let hidden = HiddenRows { values: &values, ..hidden };
        let cases = [
            ("logit", 1, RoutingPlanes { logits: Some(&logits), ..sound }),
            ("shared gate", 1, RoutingPlanes { shared_gate: Some(&[0.0, bad]), ..sound }),
            ("hidden state", 1, RoutingPlanes { hidden: Some(hidden), ..sound }),
        ];
        for (name, at, planes) in cases {
            let error = refusal(planes);
            assert!(
                matches!(error, RoutingError::NotFinite { row, plane, .. } if (row, plane) == (at, name)),
                "{error}"
            );
        }
    }
    let below = refusal(RoutingPlanes { shared_gate: Some(&[-0.5, 0.0]), ..sound });
    assert!(below.to_string().contains("of at least 0"), "{below}");
    for loss in [f32::INFINITY, f32::NEG_INFINITY] {
        let error = refusal(RoutingPlanes { nll: Some(&[0.0, loss]), ..sound });
        assert!(matches!(error, RoutingError::NotFinite { row: 1, plane: "token loss", .. }), "{error}");
    }
    for rows in [[1, 0], [1, 1]] {
        let error = refusal(RoutingPlanes { hidden: Some(HiddenRows { rows: &rows, ..hidden }), ..sound });
        assert!(matches!(error, RoutingError::HiddenOrder { before: 1, .. }), "{error}");
    }
}
