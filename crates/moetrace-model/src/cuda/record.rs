//! A layer's routing from the words that came back, on to whoever listens; token losses likewise.

use moetrace_cuda::Element;
use moetrace_routing::{
    ExpertId, HiddenRows, LayerIndex, MoeOrdinal, RoutingPlanes, RoutingSink, RoutingView,
};

use super::Model;
use super::buffers::HEAD_ROWS;
use super::pass::Asked;
use super::sections::Sections;
use crate::ModelError;
use crate::cpu::ProbePoint;

/// A layer whose routing is on its way to the host.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) ordinal: MoeOrdinal,
    pub(super) layer: LayerIndex,
    pub(super) lane: usize,
    /// Hidden states of the rows that are asked for.
    pub(super) hidden: Option<Vec<f32>>,
}

impl<T: Element> Model<T> {
    /// Waits for the oldest layer under way and lends it to the sink.
    pub(super) fn lend_first(
        &mut self,
        nll: Option<&[f32]>,
        asked: &mut Asked<'_, '_>,
        sink: &mut dyn RoutingSink,
    ) -> Result<(), ModelError> {
        self.check_first(asked)?;
        let Some(pending) = self.pending.pop_front() else { return Ok(()) };
        let n = asked.batch.len();
        let words = self.buffers.lanes[pending.lane].wait()?;
        let sections = Sections::new(&self.config, n, asked.logits);
        let ids: &[u16] = bytemuck::cast_slice(&words[sections.experts]);
        self.expert_ids.clear();
        self.expert_ids.extend(ids[..n * self.config.chosen()].iter().map(|id| ExpertId(*id)));
        let floats = |range| -> &[f32] { bytemuck::cast_slice(&words[range]) };
        let logits = floats(sections.logits);
        if let Some(probe) = asked.probe.as_deref_mut() {
            probe.observe(ProbePoint::RouterLogits(pending.layer), 0..n, logits);
        }
        let rows = asked.batch.hidden_rows();
        let gated = self.config.geometry().has_shared_gate() && asked.planes.shared_gate;
        let planes = RoutingPlanes {
            experts: &self.expert_ids,
            weights: floats(sections.weights),
            margins: floats(sections.margins),
            gate_entropy: floats(sections.entropies),
            logits: asked.planes.logits.then_some(logits),
            shared_gate: gated.then(|| floats(sections.gates)),
            hidden: pending.hidden.as_deref().map(|values| HiddenRows { rows, values }),
            nll,
        };
        Ok(sink.record(&RoutingView::new(self.config.geometry(), pending.ordinal, n, planes)?)?)
    }

    /// Waits for the oldest layer under way, and fails if a logit there is not finite.
    fn check_first(&mut self, asked: &Asked<'_, '_>) -> Result<(), ModelError> {
        let Some(pending) = self.pending.front() else { return Ok(()) };
        let words = self.buffers.lanes[pending.lane].wait()?;
        let sections = Sections::new(&self.config, asked.batch.len(), asked.logits);
        match words[sections.first_bad.start] {
            u32::MAX => Ok(()),
            // The logit itself has been overwritten: no number says as much.
            row => Err(ModelError::NotFinite { layer: pending.layer, row: row as usize, found: f32::NAN }),
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

    /// The normed stream at the rows that the batch asks for. Waits for the device: few passes ask for any.
    pub(super) fn hidden_rows(&mut self, asked: &Asked<'_, '_>) -> Result<Vec<f32>, ModelError> {
        let (rows, d) = (asked.batch.hidden_rows(), self.config.hidden());
        let (device, buffers) = (&self.gpu.device, &mut self.buffers);
        // Free here: places are filled by the grouping that follows.
        let mut numbers = buffers.places.part_mut(0..rows.len())?;
        device.write(rows, &mut numbers)?;
        let mut gathered = buffers.work.part_mut(0..rows.len() * d)?;
        let stream = buffers.normed.part(0..asked.batch.len() * d)?;
        self.operations.gather.run(stream, d, numbers.all(), &mut gathered)?;
        Ok(device.download(gathered.all())?.into_iter().map(Element::widen).collect())
    }

    /// The language-model head over the normed stream, a few rows at a time, and each token's loss; lends what is still
    /// under way, the last layer with the losses if they are asked for.
    pub(super) fn losses(
        &mut self,
        asked: &mut Asked<'_, '_>,
        sink: &mut dyn RoutingSink,
    ) -> Result<(), ModelError> {
        let (n, d, vocab) = (asked.batch.len(), self.config.hidden(), self.config.vocab());
        let Some(product) = &self.operations.head else {
            return Err(ModelError::NotPlanned { what: "losses" });
        };
        // The row before a token predicts it; the last row of a span predicts nothing.
        let mut targets = vec![u32::MAX; n];
        for span in asked.batch.spans() {
            for row in span.rows().skip(1) {
                targets[row - 1] = asked.batch.token_ids()[row].0;
            }
        }
        let device = &self.gpu.device;
        device.write(&targets, &mut self.buffers.targets.part_mut(0..n)?)?;
        let head = self.weights.head.as_ref().unwrap_or(&self.weights.embedding);
        for first in (0..n).step_by(HEAD_ROWS) {
            let end = n.min(first + HEAD_ROWS);
            let buffers = &mut self.buffers;
            let mut logits = buffers.vocabulary.part_mut(0..(end - first) * vocab)?;
            product.run(buffers.normed.part(first * d..end * d)?, head.all(), None, &mut logits)?;
            let losses = &mut buffers.losses.part_mut(first..end)?;
            self.operations.loss.run(logits.all(), vocab, buffers.targets.part(first..end)?, losses)?;
            if let Some(probe) = asked.probe.as_deref_mut() {
                probe.observe(ProbePoint::Logits, first..end, &device.download(logits.all())?);
            }
        }
        if !asked.planes.nll {
            return self.lend_all(asked, sink);
        }
        let found = device.download(self.buffers.losses.part(0..n)?)?;
        // A router that saw no number is named before the losses that come of it.
        while self.pending.len() > 1 {
            self.lend_first(None, asked, sink)?;
        }
        self.check_first(asked)?;
        let mut nll = vec![f32::NAN; n];
        for (row, loss) in found.into_iter().enumerate().filter(|(row, _)| targets[*row] != u32::MAX) {
            if !loss.is_finite() {
                return Err(ModelError::LossNotFinite { row: row + 1, found: loss });
            }
            nll[row + 1] = loss;
        }
        self.lend_first(Some(&nll), asked, sink)
    }
}
