//! A layer's routing from the words that came back, on to whoever listens; token losses likewise.

use moetrace_cuda::Element;
use moetrace_routing::{
    ExpertId, HiddenRows, LayerIndex, MoeOrdinal, RoutingPlanes, RoutingSink, RoutingView, TokenBatch,
};

use super::buffers::HEAD_ROWS;
use super::chunk::Chunk;
use super::model::Model;
use super::pass::Asked;
use super::sections::Sections;
use crate::ModelError;
use crate::cpu::ProbePoint;

/// The routing of a layer, of a chunk of the pass, on its way to the host.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) ordinal: MoeOrdinal,
    pub(super) layer: LayerIndex,
    pub(super) chunk: Chunk,
    pub(super) lane: usize,
    /// Hidden states of the rows that are asked for.
    pub(super) hidden: Option<Vec<f32>>,
}

impl<T: Element> Model<T> {
    /// Waits for the oldest chunk under way, and lends its layer to the sink once all chunks of it have come.
    pub(super) fn lend_first(
        &mut self,
        nll: Option<&[f32]>,
        asked: &mut Asked<'_, '_>,
        sink: &mut dyn RoutingSink,
    ) -> Result<(), ModelError> {
        self.check_first(asked)?;
        let Some(pending) = self.pending.pop_front() else { return Ok(()) };
        let Pending { ordinal, layer, chunk, lane, hidden } = pending;
        let words = self.buffers.lanes[lane].wait()?;
        let sections = Sections::new(&self.config, chunk.len(), asked.logits);
        let ids: &[u16] = bytemuck::cast_slice(&words[sections.experts]);
        let ids = ids[..chunk.len() * self.config.chosen()].iter().map(|id| ExpertId(*id));
        let floats = |range| -> &[f32] { bytemuck::cast_slice(&words[range]) };
        let came = Came {
            weights: floats(sections.weights),
            margins: floats(sections.margins),
            entropies: floats(sections.entropies),
            gates: floats(sections.gates),
            logits: floats(sections.logits),
        };
        if let Some(probe) = asked.probe.as_deref_mut() {
            probe.observe(ProbePoint::RouterLogits(layer), chunk.rows.clone(), came.logits);
        }
        let came = self.layer.with((ids, hidden), came, &chunk);
        if !chunk.is_last {
            return Ok(());
        }
        let (n, rows) = (asked.batch.len(), asked.batch.hidden_rows());
        let gated = self.config.geometry().has_shared_gate() && asked.planes.shared_gate;
        let planes = RoutingPlanes {
            experts: &self.layer.experts,
            weights: Some(came.map_or(&self.layer.weights, |came| came.weights)),
            margins: Some(came.map_or(&self.layer.margins, |came| came.margins)),
            gate_entropy: Some(came.map_or(&self.layer.entropies, |came| came.entropies)),
            logits: asked.planes.logits.then(|| came.map_or(&self.layer.logits[..], |came| came.logits)),
            shared_gate: gated.then(|| came.map_or(&self.layer.gates[..], |came| came.gates)),
            hidden: asked.planes.hidden.then_some(HiddenRows { rows, values: &self.layer.hidden }),
            nll,
        };
        Ok(sink.record(&RoutingView::new(self.config.geometry(), ordinal, n, planes)?)?)
    }

    /// Waits for the oldest chunk under way, and fails if a logit there is not finite.
    fn check_first(&mut self, asked: &Asked<'_, '_>) -> Result<(), ModelError> {
        let Some(pending) = self.pending.front() else { return Ok(()) };
        let words = self.buffers.lanes[pending.lane].wait()?;
        let sections = Sections::new(&self.config, pending.chunk.len(), asked.logits);
        let first = pending.chunk.rows.start;
        match words[sections.first_bad.start] {
            u32::MAX => Ok(()),
            // The logit itself has been overwritten: no number says as much.
            row => {
                let row = first + row as usize;
                Err(ModelError::NotFinite { layer: pending.layer, row, found: f32::NAN })
            }
        }
    }

    /// Lends every layer that is under way.
    pub(super) fn lend_all(
        &mut self,
        asked: &mut Asked<'_, '_>,
        sink: &mut dyn RoutingSink,
    ) -> Result<(), ModelError> {
        while !self.pending.is_empty() {
            self.lend_first(None, asked, sink)?;
        }
        Ok(())
    }

    /// The normed stream at the rows of a chunk that the batch asks for. Waits for the device: few passes ask for any.
    pub(super) fn hidden_rows(
        &mut self,
        asked: &Asked<'_, '_>,
        chunk: &Chunk,
    ) -> Result<Vec<f32>, ModelError> {
        let first = chunk.rows.start as u32;
        let rows = asked.batch.hidden_rows().iter().filter(|row| chunk.rows.contains(&(**row as usize)));
        let rows: Vec<u32> = rows.map(|row| row - first).collect();
        let (d, device, buffers) = (self.config.hidden(), &self.gpu.device, &mut self.buffers);
        // Free here: places are filled by the grouping that follows.
        let mut numbers = buffers.places.part_mut(0..rows.len())?;
        device.write(&rows, &mut numbers)?;
        let mut gathered = buffers.work.part_mut(0..rows.len() * d)?;
        let stream = buffers.normed.part(0..chunk.len() * d)?;
        self.operations.gather.run(stream, d, numbers.all(), &mut gathered)?;
        Ok(device.download(gathered.all())?.into_iter().map(Element::widen).collect())
    }

    /// The language-model head over the normed stream of a chunk, a few rows at a time, and each token's loss.
    pub(super) fn losses(&mut self, asked: &mut Asked<'_, '_>, chunk: &Chunk) -> Result<(), ModelError> {
        let (d, vocab) = (self.config.hidden(), self.config.vocab());
        let Some(product) = &self.operations.head else {
            return Err(ModelError::NotPlanned { what: "losses" });
        };
        let device = &self.gpu.device;
        let head = match &self.weights.head {
            Some(head) => head.all(),
            None => self.weights.embedding.rows(device)?,
        };
        for first in (0..chunk.len()).step_by(HEAD_ROWS) {
            let end = chunk.len().min(first + HEAD_ROWS);
            let rows = chunk.rows.start + first..chunk.rows.start + end;
            let buffers = &mut self.buffers;
            let mut logits = buffers.vocabulary.part_mut(0..(end - first) * vocab)?;
            product.run(buffers.normed.part(first * d..end * d)?, head, None, &mut logits)?;
            let losses = &mut buffers.losses.part_mut(rows.clone())?;
            self.operations.loss.run(logits.all(), vocab, buffers.targets.part(rows.clone())?, losses)?;
            if let Some(probe) = asked.probe.as_deref_mut() {
                probe.observe(ProbePoint::Logits, rows, &device.download(logits.all())?);
            }
        }
        Ok(self.timeline.mark("losses")?)
    }

    /// Lends what is still under way, the last layer with the losses if they are asked for.
    pub(super) fn lend_with_losses(
        &mut self,
        asked: &mut Asked<'_, '_>,
        sink: &mut dyn RoutingSink,
    ) -> Result<(), ModelError> {
        if !asked.planes.nll {
            return self.lend_all(asked, sink);
        }
        let n = asked.batch.len();
        let found = self.gpu.device.download(self.buffers.losses.part(0..n)?)?;
        // A router that saw no number is named before the losses that come of it.
        while self.pending.len() > 1 {
            self.lend_first(None, asked, sink)?;
        }
        self.check_first(asked)?;
        let mut nll = vec![f32::NAN; n];
        let targets = targets(asked.batch);
        for (row, loss) in found.into_iter().enumerate().filter(|(row, _)| targets[*row] != u32::MAX) {
            if !loss.is_finite() {
                return Err(ModelError::LossNotFinite { row: row + 1, found: loss });
            }
            nll[row + 1] = loss;
        }
        self.lend_first(Some(&nll), asked, sink)
    }
}

/// The token that each row predicts; the last row of a span predicts nothing.
pub(super) fn targets(batch: &TokenBatch) -> Vec<u32> {
    let mut targets = vec![u32::MAX; batch.len()];
    for span in batch.spans() {
        for row in span.rows().skip(1) {
            targets[row - 1] = batch.token_ids()[row].0;
        }
    }
    targets
}

/// What came of a chunk but its choices.
#[derive(Clone, Copy)]
struct Came<'a> {
    weights: &'a [f32],
    margins: &'a [f32],
    entropies: &'a [f32],
    gates: &'a [f32],
    logits: &'a [f32],
}

/// The routing of a layer as far as it has come, where it comes in chunks; its choices and hidden states in any case.
/// Kept for its memory.
#[derive(Debug, Default)]
pub(super) struct LayerRouting {
    experts: Vec<ExpertId>,
    hidden: Vec<f32>,
    weights: Vec<f32>,
    margins: Vec<f32>,
    entropies: Vec<f32>,
    gates: Vec<f32>,
    logits: Vec<f32>,
}

impl LayerRouting {
    /// Adds a chunk. What is a whole pass stays where it came, and is given back.
    fn with<'a>(
        &mut self,
        (ids, hidden): (impl Iterator<Item = ExpertId>, Option<Vec<f32>>),
        came: Came<'a>,
        chunk: &Chunk,
    ) -> Option<Came<'a>> {
        let all =
            [&mut self.weights, &mut self.margins, &mut self.entropies, &mut self.gates, &mut self.logits];
        if chunk.number == 0 {
            self.experts.clear();
            self.hidden.clear();
        }
        self.experts.extend(ids);
        self.hidden.extend(hidden.into_iter().flatten());
        if chunk.is_whole() {
            return Some(came);
        }
        let new = [came.weights, came.margins, came.entropies, came.gates, came.logits];
        for (plane, new) in all.into_iter().zip(new) {
            if chunk.number == 0 {
                plane.clear();
            }
            plane.extend_from_slice(new);
        }
        None
    }
}
