//! Feed-forward blocks: one for all rows, or each row's chosen experts.

use moetrace_cuda::{CudaError, Element, GatheredRows, GroupedRows, ProductShape, Slice, SliceMut, Timeline};

use super::operations::{BlockProducts, Operations};
use super::pass::carve;
use super::weights::{ExpertGroup, SwiGlu};

/// All rows of a pass, and the offsets `[0, N]`.
#[derive(Clone, Copy)]
pub(super) struct Whole<'a, T> {
    pub(super) rows: Slice<'a, T>,
    pub(super) offsets: Slice<'a, u32>,
}

/// Choices of a chunk, grouped by expert.
pub(super) struct GroupedChoices<'a> {
    /// `[R]`: the token of each row.
    pub(super) sources: Slice<'a, u32>,
    /// `[E + 1]`.
    pub(super) offsets: Slice<'a, u32>,
    /// The same on the host, where experts are multiplied one by one.
    pub(super) counts: Option<Vec<u32>>,
}

/// Where experts work.
pub(super) struct ExpertRoom<'a, 'b, T> {
    /// `[R, D]`.
    pub(super) rows: &'a mut SliceMut<'b, T>,
    /// `[R, F]`.
    pub(super) middle: &'a mut SliceMut<'b, T>,
    /// Room for `[R, 2F]` where the activation is an operation of its own.
    pub(super) rest: SliceMut<'a, T>,
}

impl<T: Element> Operations<T> {
    /// A block on all rows: x `[N, D]` to out `[N, D]`, by way of `middle` `[N, F]` and, where the activation is an
    /// operation of its own, of `[N, 2F]` in `rest`.
    pub(super) fn feed_forward(
        &self,
        (block, products): (&SwiGlu<T>, &BlockProducts<T>),
        x: Whole<'_, T>,
        (middle, rest): (&mut SliceMut<'_, T>, SliceMut<'_, T>),
        scratch: &mut SliceMut<'_, T>,
        out: &mut SliceMut<'_, T>,
    ) -> Result<(), CudaError> {
        let ProductShape { outputs: depth, inputs: width, .. } = products.down.shape();
        let gate_up = block.gate_up.restored(&self.dequantise, scratch)?;
        if let Some(product) = &self.grouped {
            let grouped = GroupedRows { rows: x.rows, depth, offsets: x.offsets };
            product.gate_up(&grouped, gate_up, width, middle)?;
        } else {
            let mut both = carve(rest, 2 * middle.len())?.0;
            products.gate_up.run(x.rows, gate_up, None, &mut both)?;
            self.silu.run(both.all(), width, middle)?;
        }
        products.down.run(middle.all(), block.down.restored(&self.dequantise, scratch)?, None, out)
    }

    /// A group of experts on the rows that chose them: x `[N, D]`, results in `rows`.
    pub(super) fn experts(
        &self,
        ExpertGroup { ids, weights, .. }: &ExpertGroup<T>,
        x: Slice<'_, T>,
        choices: &GroupedChoices<'_>,
        mut room: ExpertRoom<'_, '_, T>,
        (scratch, timeline): (&mut SliceMut<'_, T>, &Timeline),
    ) -> Result<(), CudaError> {
        if let Some(counts) = &choices.counts {
            self.one_by_one(weights, &counts[ids.start..=ids.end], &mut room, scratch)?;
            return timeline.mark("experts");
        }
        let Some(product) = &self.grouped else { return Ok(()) };
        let ProductShape { outputs: d, inputs: f, .. } = self.expert.down.shape();
        let (sources, offsets) = (choices.sources, choices.offsets.part(ids.start..ids.end + 1)?);
        let gate_up = weights.gate_up.restored(&self.dequantise, scratch)?;
        timeline.mark("dequantise")?;
        let gathered = GatheredRows { tokens: x, depth: d, sources, offsets };
        product.gate_up_gathered(&gathered, gate_up, f, room.middle)?;
        timeline.mark("experts' gate and up")?;
        let down = weights.down.restored(&self.dequantise, scratch)?;
        timeline.mark("dequantise")?;
        product.down(&GroupedRows { rows: room.middle.all(), depth: f, offsets }, down, d, room.rows)?;
        timeline.mark("experts' down")
    }

    /// Experts, a product each: `rows`, grouped, are read and then hold the results.
    fn one_by_one(
        &self,
        experts: &SwiGlu<T>,
        offsets: &[u32],
        ExpertRoom { rows, middle, rest }: &mut ExpertRoom<'_, '_, T>,
        scratch: &mut SliceMut<'_, T>,
    ) -> Result<(), CudaError> {
        let ProductShape { outputs: d, inputs: f, .. } = self.expert.down.shape();
        let mut both = carve(rest.all_mut(), 2 * middle.len())?.0;
        let gate_up = experts.gate_up.restored(&self.dequantise, scratch)?;
        for_each_expert(offsets, |expert, range| {
            let weight = gate_up.part(expert * 2 * f * d..(expert + 1) * 2 * f * d)?;
            let out = &mut both.part_mut(range.start * 2 * f..range.end * 2 * f)?;
            self.expert.gate_up.run(rows.all().part(range.start * d..range.end * d)?, weight, None, out)
        })?;
        // Also rows of other groups: what is made of them is not looked at.
        self.silu.run(both.all(), f, middle)?;
        let down = experts.down.restored(&self.dequantise, scratch)?;
        for_each_expert(offsets, |expert, range| {
            let weight = down.part(expert * d * f..(expert + 1) * d * f)?;
            let out = &mut rows.part_mut(range.start * d..range.end * d)?;
            self.expert.down.run(middle.all().part(range.start * f..range.end * f)?, weight, None, out)
        })
    }
}

/// Calls `product` for every expert that got rows.
fn for_each_expert(
    offsets: &[u32],
    mut product: impl FnMut(usize, std::ops::Range<usize>) -> Result<(), CudaError>,
) -> Result<(), CudaError> {
    for (expert, pair) in offsets.windows(2).enumerate() {
        let range = pair[0] as usize..pair[1] as usize;
        if !range.is_empty() {
            product(expert, range)?;
        }
    }
    Ok(())
}
