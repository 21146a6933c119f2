//! One pass through all layers on the device.

use moetrace_cuda::{AttentionRows, CudaError, Element, HeadRows, RotaryTables, Slice, SliceMut};
use moetrace_routing::{LayerIndex, MoeOrdinal, Planes, RoutingSink, TokenBatch};

use super::Model;
use super::buffers::PART_ELEMENTS;
use super::feed_forward::Whole;
use super::weights::{Block, LayerWeights};
use crate::cpu::{Probe, ProbePoint};
use crate::family::QkNorm;
use crate::{ModelConfig, ModelError};

/// What a pass is asked for.
pub(super) struct Asked<'a, 'p> {
    pub(super) batch: &'a TokenBatch,
    pub(super) planes: Planes,
    /// Whether logits travel too: the sink wants them, or there is a probe.
    pub(super) logits: bool,
    pub(super) probe: Option<&'p mut dyn Probe>,
}

/// The first `length` elements of `rest`, and what begins at the next multiple of 256 bytes.
pub(super) fn carve<T>(
    rest: SliceMut<'_, T>,
    length: usize,
) -> Result<(SliceMut<'_, T>, SliceMut<'_, T>), CudaError> {
    let (first, rest) = rest.split(length.next_multiple_of(PART_ELEMENTS))?;
    Ok((first.split(length)?.0, rest))
}

impl<T: Element> Model<T> {
    /// Runs the layers, records each MoE layer, and stops where nobody needs the rest.
    pub(super) fn layers(
        &mut self,
        asked: &mut Asked<'_, '_>,
        sink: &mut dyn RoutingSink,
    ) -> Result<(), ModelError> {
        let whole_model = asked.planes.nll || asked.probe.is_some();
        let last_ordinal = self.config.geometry().layers().len() - 1;
        let elements = asked.batch.len() * self.config.hidden();
        let mut ordinal = 0usize;
        for number in 0..self.weights.layers.len() {
            let index = LayerIndex(number as u16);
            self.input_norm(number, elements)?;
            if number == 0 {
                self.observe(asked, ProbePoint::Embedding, self.buffers.stream.part(0..elements)?)?;
            } else {
                let before = ProbePoint::LayerOutput(LayerIndex(number as u16 - 1));
                self.observe(asked, before, self.buffers.stream.part(0..elements)?)?;
            }
            self.attention(number, asked.batch.len())?;
            self.observe(asked, ProbePoint::AttentionOutput(index), self.buffers.added.part(0..elements)?)?;
            self.residual_norm(Some(number), elements)?;
            if self.config.is_moe(number) {
                let is_last = ordinal == last_ordinal;
                self.route(number, MoeOrdinal(ordinal as u16), asked, sink)?;
                ordinal += 1;
                if is_last && !whole_model {
                    return self.lend_all(asked, sink);
                }
                self.experts(number, asked.batch.len())?;
            } else {
                self.dense(number, asked.batch.len())?;
            }
            self.observe(asked, ProbePoint::MlpOutput(index), self.buffers.added.part(0..elements)?)?;
        }
        self.residual_norm(None, elements)?;
        let last = LayerIndex(self.weights.layers.len() as u16 - 1);
        self.observe(asked, ProbePoint::LayerOutput(last), self.buffers.stream.part(0..elements)?)?;
        self.observe(asked, ProbePoint::FinalNorm, self.buffers.normed.part(0..elements)?)?;
        self.losses(asked, sink)
    }

    /// Norms the stream for attention; what the layer before left to be added is added first.
    fn input_norm(&mut self, layer: usize, elements: usize) -> Result<(), CudaError> {
        let eps = self.config.rms_norm_eps() as f32;
        let (buffers, weight) = (&mut self.buffers, self.weights.layers[layer].input_norm.all());
        let normed = &mut buffers.normed.part_mut(0..elements)?;
        if layer == 0 {
            self.operations.norm.run(buffers.stream.part(0..elements)?, weight, eps, normed)?;
        } else {
            let added = buffers.added.part(0..elements)?;
            let stream = &mut buffers.stream.part_mut(0..elements)?;
            self.operations.norm.run_with_residual(stream, added, weight, eps, normed)?;
        }
        self.timeline.mark("norms")
    }

    /// Adds a block's output to the stream and norms that, after attention of a layer or after all of them.
    fn residual_norm(&mut self, layer: Option<usize>, elements: usize) -> Result<(), CudaError> {
        let eps = self.config.rms_norm_eps() as f32;
        let weights = &self.weights;
        let weight =
            layer.map_or(&weights.final_norm, |layer| &weights.layers[layer].post_attention_norm).all();
        let buffers = &mut self.buffers;
        let (added, normed) = (buffers.added.part(0..elements)?, &mut buffers.normed.part_mut(0..elements)?);
        let stream = &mut buffers.stream.part_mut(0..elements)?;
        self.operations.norm.run_with_residual(stream, added, weight, eps, normed)?;
        self.timeline.mark("norms")
    }

    fn attention(&mut self, layer: usize, n: usize) -> Result<(), CudaError> {
        let (config, ops, weights) = (&self.config, &self.operations, &self.weights.layers[layer]);
        let (d, width) = (config.hidden(), config.head_width());
        let (queries, keys) = (config.heads() * width, config.kv_heads() * width);
        let row = queries + 2 * keys;
        let buffers = &mut self.buffers;
        let (mut qkv, rest) = carve(buffers.work.all_mut(), n * row)?;
        let (mut mixed, _) = carve(rest, n * queries)?;
        let mut scratch = buffers.restored.all_mut();
        let normed = buffers.normed.part(0..n * d)?;
        let bias = weights.qkv_bias.as_ref().map(|bias| bias.all());
        let matrix = weights.qkv.restored(&ops.dequantise, &mut scratch)?;
        self.timeline.mark("dequantise")?;
        ops.qkv.run(normed, matrix, bias, &mut qkv)?;
        self.timeline.mark("q, k, v product")?;
        norm_heads(config, weights, ops, &mut qkv, n)?;
        let half = width / 2;
        let tables = RotaryTables {
            cosines: buffers.cosines.part(0..self.angles.rows * half)?,
            sines: buffers.sines.part(0..self.angles.rows * half)?,
        };
        let turned = HeadRows { heads: config.heads() + config.kv_heads(), width, stride: row };
        ops.rotary.run(&mut qkv, turned, buffers.positions.part(0..n)?, tables)?;
        self.timeline.mark("rotary")?;
        let lent = qkv.all();
        let rows = AttentionRows {
            queries: lent.part(0..n * row - 2 * keys)?,
            keys: lent.part(queries..n * row - keys)?,
            values: lent.part(queries + keys..n * row)?,
            stride: row,
        };
        ops.attention.run(&rows, &buffers.sequences, &mut mixed)?;
        self.timeline.mark("attention")?;
        let bias = weights.output_bias.as_ref().map(|bias| bias.all());
        let output = weights.output.restored(&ops.dequantise, &mut scratch)?;
        self.timeline.mark("dequantise")?;
        ops.output.run(mixed.all(), output, bias, &mut buffers.added.part_mut(0..n * d)?)?;
        self.timeline.mark("output product")
    }

    fn dense(&mut self, layer: usize, n: usize) -> Result<(), CudaError> {
        let Block::Dense(block) = &self.weights.layers[layer].block else { return Ok(()) };
        let Some(products) = &self.operations.dense else { return Ok(()) };
        let (d, f) = (self.config.hidden(), self.config.dense_width());
        let buffers = &mut self.buffers;
        let (mut middle, rest) = carve(buffers.work.all_mut(), n * f)?;
        let x = Whole { rows: buffers.normed.part(0..n * d)?, offsets: buffers.whole.all() };
        let (mut scratch, out) = (buffers.restored.all_mut(), &mut buffers.added.part_mut(0..n * d)?);
        self.operations.feed_forward((block, products), x, (&mut middle, rest), &mut scratch, out)?;
        self.timeline.mark("dense block")
    }

    /// Shows the probe, if there is one, a matrix of the pass.
    pub(super) fn observe(
        &self,
        asked: &mut Asked<'_, '_>,
        point: ProbePoint,
        values: Slice<'_, T>,
    ) -> Result<(), ModelError> {
        if let Some(probe) = asked.probe.as_deref_mut() {
            let values = self.gpu.device.download(values)?;
            let wide: Vec<f32> = values.into_iter().map(Element::widen).collect();
            probe.observe(point, 0..asked.batch.len(), &wide);
        }
        Ok(())
    }
}

/// RMSNorm of queries and keys, where the family has it.
fn norm_heads<T: Element>(
    config: &ModelConfig,
    weights: &LayerWeights<T>,
    ops: &super::operations::Operations<T>,
    qkv: &mut SliceMut<'_, T>,
    n: usize,
) -> Result<(), CudaError> {
    let (Some(query_norm), Some(key_norm)) = (&weights.query_norm, &weights.key_norm) else { return Ok(()) };
    let width = config.head_width();
    let (queries, keys) = (config.heads() * width, config.kv_heads() * width);
    let stride = queries + 2 * keys;
    let eps = config.rms_norm_eps() as f32;
    let of = |elements: usize| match config.family().rules().qk_norm {
        QkNorm::FullWidth => HeadRows { heads: 1, width: elements, stride },
        QkNorm::None | QkNorm::PerHead => HeadRows { heads: elements / width, width, stride },
    };
    let end = n * stride;
    ops.norm.run_in_place(&mut qkv.part_mut(0..end)?, n, of(queries), query_norm.all(), eps)?;
    ops.norm.run_in_place(&mut qkv.part_mut(queries..end)?, n, of(keys), key_norm.all(), eps)
}
