//! A sink and a probe that keep everything, and batches to run.

use std::collections::HashMap;
use std::ops::Range;

use moetrace_model::{Probe, ProbePoint};
use moetrace_routing::{Planes, RoutingSink, RoutingView, SampleId, SinkError, Span, TokenBatch, TokenId};

/// One recorded layer; floats as bits where equality must be exact.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Layer {
    pub(crate) number: usize,
    pub(crate) experts: Vec<u16>,
    pub(crate) weights: Vec<f32>,
    pub(crate) margins: Vec<f32>,
    pub(crate) gate_entropy: Vec<f32>,
    pub(crate) logits: Option<Vec<f32>>,
    pub(crate) shared_gate: Option<Vec<f32>>,
    pub(crate) hidden: Option<Vec<f32>>,
    pub(crate) nll: Option<Vec<f32>>,
}

#[derive(Debug, Default)]
pub(crate) struct Recorder {
    pub(crate) wanted: Planes,
    pub(crate) layers: Vec<Layer>,
    pub(crate) began: usize,
    pub(crate) ended: usize,
}

impl Recorder {
    pub(crate) fn wanting(wanted: Planes) -> Self {
        Self { wanted, ..Self::default() }
    }

    pub(crate) fn everything() -> Self {
        Self::wanting(Planes { logits: true, shared_gate: true, hidden: true, nll: true })
    }
}

impl RoutingSink for Recorder {
    fn wants(&self) -> Planes {
        self.wanted
    }
    fn begin(&mut self, _: &TokenBatch) -> Result<(), SinkError> {
        self.began += 1;
        Ok(())
    }
    fn record(&mut self, view: &RoutingView<'_>) -> Result<(), SinkError> {
        self.layers.push(Layer {
            number: view.layer().index(),
            experts: view.experts().iter().map(|e| e.0).collect(),
            weights: view.weights().unwrap().to_vec(),
            margins: view.margins().unwrap().to_vec(),
            gate_entropy: view.gate_entropy().unwrap().to_vec(),
            logits: view.logits().map(<[f32]>::to_vec),
            shared_gate: view.shared_gate().map(<[f32]>::to_vec),
            hidden: view.hidden().map(|h| h.values.to_vec()),
            nll: view.nll().map(<[f32]>::to_vec),
        });
        Ok(())
    }
    fn end(&mut self) -> Result<(), SinkError> {
        self.ended += 1;
        Ok(())
    }
}

/// Every tensor that passes by, rows of several calls joined.
#[derive(Debug, Default)]
pub(crate) struct Seen(pub(crate) HashMap<ProbePoint, Vec<f32>>);

impl Probe for Seen {
    fn observe(&mut self, point: ProbePoint, _: Range<usize>, values: &[f32]) {
        self.0.entry(point).or_default().extend_from_slice(values);
    }
}

/// A packed batch of samples, positions counting from 0 in each.
pub(crate) fn batch(samples: &[Vec<u32>]) -> TokenBatch {
    let positions = samples.iter().map(|s| (0..s.len() as u32).collect()).collect::<Vec<_>>();
    batch_at(samples, &positions)
}

/// The same with given positions.
pub(crate) fn batch_at(samples: &[Vec<u32>], positions: &[Vec<u32>]) -> TokenBatch {
    let mut start = 0;
    let mut spans = Vec::new();
    for (number, sample) in samples.iter().enumerate() {
        let (sample_id, dataset) = (SampleId(number as u32), "test".into());
        let len = sample.len();
        spans.push(Span { sample: sample_id, dataset, label: None, start, len, begins_with_bos: false });
        start += len;
    }
    let ids = samples.iter().flatten().map(|id| TokenId(*id)).collect();
    TokenBatch::new(ids, positions.concat(), spans).unwrap()
}

/// `len` token ids below `vocab`, the same for the same seed.
pub(crate) fn tokens(seed: u32, len: usize, vocab: u32) -> Vec<u32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) % vocab
    };
    (0..len).map(|_| next()).collect()
}
