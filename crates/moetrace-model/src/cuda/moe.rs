//! A MoE layer: the router's choice on its way to the host, and the experts' rows.

use moetrace_cuda::{CudaError, Element, ExpertResults, Grouping, RouterOutput, SharedResults, SliceMut};
use moetrace_routing::{LayerIndex, MoeOrdinal, RoutingSink};

use super::buffers::LANES;
use super::feed_forward::{ExpertRoom, GroupedChoices, Whole};
use super::model::Model;
use super::pass::{Asked, At, carve};
use super::record::Pending;
use super::sections::Sections;
use super::stream::Stream;
use super::weights::{Block, ExpertGroup};
use crate::ModelError;

/// The words of `length` elements, `each` to a word, and what begins at the next multiple of sixteen bytes: the
/// order and places of [`Sections`].
fn section(
    rest: SliceMut<'_, u32>,
    length: usize,
    each: usize,
) -> Result<(SliceMut<'_, u32>, SliceMut<'_, u32>), CudaError> {
    let words = length.div_ceil(each);
    let (first, rest) = rest.split(words.next_multiple_of(4))?;
    Ok((first.split(words)?.0, rest))
}

impl<T: Element> Model<T> {
    /// Logits, choices and gates of a layer, for the residual stream as normed; sets them on their way to the host.
    pub(super) fn route(
        &mut self,
        At { layer, chunk, .. }: &At,
        ordinal: MoeOrdinal,
        asked: &mut Asked<'_, '_>,
        sink: &mut dyn RoutingSink,
    ) -> Result<(), ModelError> {
        if self.pending.len() == LANES {
            self.lend_first(None, asked, sink)?;
        }
        let layer = *layer;
        let Block::Moe(moe) = &self.weights.layers[layer].block else { return Ok(()) };
        let (n, e, k, d) = (chunk.len(), self.config.experts(), self.config.chosen(), self.config.hidden());
        let sections = Sections::new(&self.config, n, asked.logits);
        let (ops, buffers) = (&self.operations, &mut self.buffers);
        let normed = buffers.normed.part(0..n * d)?;
        ops.logits.run(normed, moe.router.all(), None, &mut buffers.logits.part_mut(0..n * e)?)?;
        let number = self.lane;
        self.lane = (number + 1) % LANES;
        let lane = &mut buffers.lanes[number];
        let place = lane.place()?;
        let (experts, place) = section(place, n * k, 2)?;
        let (weights, place) = section(place, n * k, 1)?;
        let (margins, place) = section(place, n, 1)?;
        let (entropies, place) = section(place, n, 1)?;
        let (gates, place) = section(place, sections.gates.len(), 1)?;
        let (first_bad, place) = section(place, 1, 1)?;
        let (logits, _) = section(place, sections.logits.len(), 1)?;
        let mut out = RouterOutput {
            experts: experts.halves().split(n * k)?.0,
            weights: weights.floats(),
            margins: margins.floats(),
            entropies: entropies.floats(),
            logits: asked.logits.then(|| logits.floats()),
            first_bad,
        };
        ops.router.run(buffers.logits.part(0..n * e)?, &mut out)?;
        if let Some(gate) = &moe.shared_gate {
            ops.shared_gate.run(normed, gate.all(), &mut gates.floats())?;
        }
        lane.queue(sections.end)?;
        self.timeline.mark("router")?;
        let hidden = if asked.planes.hidden { Some(self.hidden_rows(asked, chunk)?) } else { None };
        let layer = LayerIndex(layer as u16);
        self.pending.push_back(Pending { ordinal, layer, chunk: chunk.clone(), lane: number, hidden });
        Ok(())
    }

    /// The shared block and the chosen experts of the chunk that was routed last.
    pub(super) fn experts(&mut self, At { layer, chunk, .. }: &At) -> Result<(), ModelError> {
        let n = chunk.len();
        let weights = &self.weights.layers[*layer];
        let (by_group, front) = (weights.comes_by_group(), weights.unit);
        let Block::Moe(moe) = &weights.block else { return Ok(()) };
        let Some(routed) = self.pending.back() else { return Ok(()) };
        let (d, f, k) = (self.config.hidden(), self.config.expert_width(), self.config.chosen());
        let (choices, shared_width) = (n * k, self.config.shared_width());
        let sections = Sections::new(&self.config, n, false);
        let (ops, buffers) = (&self.operations, &mut self.buffers);
        let routing = buffers.lanes[routed.lane].written();
        let experts = routing.part(sections.experts)?.halves().part(0..choices)?;
        let weights = routing.part(sections.weights)?.floats();
        let gates = routing.part(sections.gates)?.floats();
        let mut scratch = buffers.restored.all_mut();
        let x = Whole { rows: buffers.normed.part(0..n * d)?, offsets: buffers.whole.part(chunk.offsets())? };
        let mut grouping = Grouping {
            offsets: buffers.offsets.all_mut(),
            places: buffers.places.part_mut(0..choices)?,
            sources: buffers.sources.part_mut(0..choices)?,
        };
        ops.group.run(experts, k, &mut grouping)?;
        self.timeline.mark("grouping")?;
        let mut work = buffers.work.all_mut();
        let mut shared = None;
        if let (Some(block), Some(products)) = (&moe.shared, &ops.shared) {
            let (mut rows, rest) = carve(work, n * d)?;
            let (mut middle, mut rest) = carve(rest, n * shared_width)?;
            ops.feed_forward((block, products), x, (&mut middle, rest.all_mut()), &mut scratch, &mut rows)?;
            self.timeline.mark("shared experts")?;
            shared = Some(rows);
            work = rest;
        }
        let (mut rows, rest) = carve(work, choices * d)?;
        let (mut middle, mut rest) = carve(rest, choices * f)?;
        let mut counts = None;
        if ops.grouped.is_none() {
            counts = Some(self.gpu.device.download(grouping.offsets.all())?);
            ops.gather.run(x.rows, d, grouping.sources.all(), &mut rows)?;
        }
        if let (Some(stream), true) = (&mut self.stream, by_group) {
            stream.end(front)?;
        }
        let grouped =
            GroupedChoices { sources: grouping.sources.all(), offsets: grouping.offsets.all(), counts };
        for_each_group(&mut self.stream, &moe.experts, |group| {
            let room = ExpertRoom { rows: &mut rows, middle: &mut middle, rest: rest.all_mut() };
            ops.experts(group, x.rows, &grouped, room, (&mut scratch, &self.timeline))
        })?;
        let gates = moe.shared_gate.as_ref().map(|_| gates);
        let results = ExpertResults {
            results: rows.all(),
            places: grouping.places.all(),
            experts,
            weights,
            shared: shared.as_ref().map(|rows| SharedResults { rows: rows.all(), gates }),
        };
        ops.combine.run(&results, d, &mut buffers.added.part_mut(0..n * d)?)?;
        Ok(self.timeline.mark("combine")?)
    }
}

/// Calls `run` for each group of experts while it is on the device.
fn for_each_group<T>(
    stream: &mut Option<Stream>,
    groups: &[ExpertGroup<T>],
    mut run: impl FnMut(&ExpertGroup<T>) -> Result<(), CudaError>,
) -> Result<(), ModelError> {
    for group in groups {
        if let Some(stream) = stream {
            stream.begin(group.unit)?;
        }
        run(group)?;
        if let Some(stream) = stream {
            stream.end(group.unit)?;
        }
    }
    Ok(())
}
