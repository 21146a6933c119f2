use moetrace_routing::{
    ExpertId, LayerIndex, MoeOrdinal, Planes, RoundWeights, RoutingGeometry, RoutingPlanes, RoutingSink,
    RoutingView, SampleId, SinkError, Span, Tee, TokenBatch, TokenId, WeightPrecision,
};

#[derive(Default)]
struct Listener {
    wants: Planes,
    heard: Vec<String>,
    weights: Vec<f32>,
    fails_at_record: bool,
}

impl RoutingSink for Listener {
    fn wants(&self) -> Planes {
        self.wants
    }
    fn begin(&mut self, batch: &TokenBatch) -> Result<(), SinkError> {
        self.heard.push(format!("begin {}", batch.len()));
        Ok(())
    }
    fn record(&mut self, view: &RoutingView<'_>) -> Result<(), SinkError> {
        if self.fails_at_record {
            return Err(SinkError::new("full"));
        }
        self.heard.push(format!("layer {}", view.layer()));
        self.weights.extend(view.weights().unwrap());
        Ok(())
    }
    fn end(&mut self) -> Result<(), SinkError> {
        self.heard.push("end".into());
        Ok(())
    }
}

fn play(sink: &mut dyn RoutingSink) -> Result<(), SinkError> {
    let geometry = RoutingGeometry::new(2, 1, 1, vec![LayerIndex(5)]).unwrap();
    let span = Span {
        sample: SampleId(0),
        dataset: "d".into(),
        label: None,
        start: 0,
        len: 1,
        begins_with_bos: true,
    };
    let batch = TokenBatch::new(vec![TokenId(0)], vec![0], vec![span]).unwrap();
    let planes = RoutingPlanes {
        experts: &[ExpertId(1)],
        weights: Some(&[0.123_456_79]),
        margins: Some(&[0.0]),
        gate_entropy: Some(&[1.0]),
        ..RoutingPlanes::default()
    };
    sink.begin(&batch)?;
    sink.record(&RoutingView::new(&geometry, MoeOrdinal(0), 1, planes)?)?;
    sink.end()
}

#[test]
fn a_tee_wants_what_either_wants_and_tells_both() {
    let a = Listener { wants: Planes { logits: true, ..Planes::default() }, ..Listener::default() };
    let b = Listener { wants: Planes { nll: true, ..Planes::default() }, ..Listener::default() };
    let mut tee = Tee(a, b);
    assert_eq!(tee.wants(), Planes { logits: true, nll: true, ..Planes::default() });
    play(&mut tee).unwrap();
    assert_eq!(tee.0.heard, ["begin 1", "layer 5", "end"]);
    assert_eq!(tee.0.heard, tee.1.heard);
}

#[test]
fn an_error_in_one_half_of_a_tee_stops_the_pass() {
    let mut tee = Tee(Listener { fails_at_record: true, ..Listener::default() }, Listener::default());
    assert_eq!(play(&mut tee).unwrap_err().to_string(), "full");
    assert_eq!(tee.1.heard, ["begin 1"]);
}

#[test]
fn rounded_weights_reach_both_halves_of_a_tee_alike() {
    let mut sink = RoundWeights::new(Tee(Listener::default(), Listener::default()), WeightPrecision::Half);
    play(&mut sink).unwrap();
    let Tee(a, b) = sink.into_inner();
    assert_eq!(a.weights, [moetrace_routing::round_to_half_precision(0.123_456_79)]);
    assert_eq!(a.weights, b.weights);
    let mut whole = RoundWeights::new(Listener::default(), WeightPrecision::Full);
    play(&mut whole).unwrap();
    assert_eq!(whole.into_inner().weights, [0.123_456_79]);
}
