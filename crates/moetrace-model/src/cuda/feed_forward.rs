//! Feed-forward blocks: one for all rows, or each row's chosen experts.

use moetrace_cuda::{CudaError, Element, GatheredRows, GroupedRows, ProductShape, Slice, SliceMut, Timeline};

use super::operations::{BlockProducts, Operations};
use super::pass::carve;
use super::weights::SwiGlu;

/// All rows of a pass, and the offsets `[0, N]`.
#[derive(Clone, Copy)]
pub(super) struct Whole<'a, T> {
    pub(super) rows: Slice<'a, T>,
    pub(super) offsets: Slice<'a, u32>,
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

    /// Chosen experts in two launches: x `[N, D]` to `rows` `[R, D]` by way of `middle` `[R, F]`.
    pub(super) fn all_experts(
        &self,
        experts: &SwiGlu<T>,
        x: Slice<'_, T>,
        (sources, offsets): (Slice<'_, u32>, Slice<'_, u32>),
        [rows, middle]: [&mut SliceMut<'_, T>; 2],
        (scratch, timeline): (&mut SliceMut<'_, T>, &Timeline),
    ) -> Result<(), CudaError> {
        let Some(product) = &self.grouped else { return Ok(()) };
        let ProductShape { outputs: d, inputs: f, .. } = self.expert.down.shape();
        let gate_up = experts.gate_up.restored(&self.dequantise, scratch)?;
        timeline.mark("dequantise")?;
        let gathered = GatheredRows { tokens: x, depth: d, sources, offsets };
        product.gate_up_gathered(&gathered, gate_up, f, middle)?;
        timeline.mark("experts' gate and up")?;
        let down = experts.down.restored(&self.dequantise, scratch)?;
        timeline.mark("dequantise")?;
        product.down(&GroupedRows { rows: middle.all(), depth: f, offsets }, down, d, rows)?;
        timeline.mark("experts' down")
    }

    /// Chosen experts, a product each: `rows` `[R, D]`, grouped, are read and then hold the results; `middle` is
    /// `[R, F]`, and `rest` has room for `[R, 2F]`.
    pub(super) fn expert_by_expert(
        &self,
        experts: &SwiGlu<T>,
        offsets: &[u32],
        [rows, middle]: [&mut SliceMut<'_, T>; 2],
        rest: SliceMut<'_, T>,
        scratch: &mut SliceMut<'_, T>,
    ) -> Result<(), CudaError> {
        let ProductShape { outputs: d, inputs: f, .. } = self.expert.down.shape();
        let mut both = carve(rest, 2 * middle.len())?.0;
        let gate_up = experts.gate_up.restored(&self.dequantise, scratch)?;
        for_each_expert(offsets, |expert, range| {
            let weight = gate_up.part(expert * 2 * f * d..(expert + 1) * 2 * f * d)?;
            let out = &mut both.part_mut(range.start * 2 * f..range.end * 2 * f)?;
            self.expert.gate_up.run(rows.all().part(range.start * d..range.end * d)?, weight, None, out)
        })?;
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
