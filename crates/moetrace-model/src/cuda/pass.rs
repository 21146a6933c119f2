//! One pass through all layers on the device.

use moetrace_cuda::{AttentionRows, CudaError, Element, HeadRows, RotaryTables, SliceMut};
use moetrace_routing::{LayerIndex, MoeOrdinal, Planes, RoutingSink, TokenBatch};

use super::buffers::{Hidden, PART_ELEMENTS};
use super::chunk::Chunk;
use super::feed_forward::Whole;
use super::model::Model;
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

impl Asked<'_, '_> {
    /// Whether anybody needs more than the routing.
    pub(super) fn is_whole_model(&self) -> bool {
        self.planes.nll || self.probe.is_some()
    }
}

/// A chunk in a layer.
pub(super) struct At {
    pub(super) layer: usize,
    pub(super) chunk: Chunk,
    /// Whether this is the pass's last layer.
    pub(super) ends: bool,
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
    /// Runs the layers, each over all chunks of the pass, records each MoE layer, and stops where nobody needs the rest.
    pub(super) fn layers(
        &mut self,
        asked: &mut Asked<'_, '_>,
        sink: &mut dyn RoutingSink,
    ) -> Result<(), ModelError> {
        let whole_model = asked.is_whole_model();
        let moe_layers = self.config.geometry().layers();
        let (last_ordinal, last_routed) = (moe_layers.len() - 1, moe_layers[moe_layers.len() - 1].index());
        let layers = if whole_model { self.weights.layers.len() } else { last_routed + 1 };
        let mut ordinal = 0usize;
        for layer in 0..layers {
            let unit = self.weights.layers[layer].unit;
            if let Some(stream) = &mut self.stream {
                stream.begin(unit)?;
            }
            let is_moe = self.config.is_moe(layer);
            for number in 0..self.chunks.len() {
                let at = At { layer, chunk: self.chunks[number].clone(), ends: layer + 1 == layers };
                self.arrive(&at)?;
                self.attend(&at, asked)?;
                if is_moe {
                    self.route(&at, MoeOrdinal(ordinal as u16), asked, sink)?;
                    if whole_model || ordinal < last_ordinal {
                        self.experts(&at)?;
                    }
                } else {
                    self.dense(layer, &at.chunk)?;
                }
                self.observe(asked, ProbePoint::MlpOutput(index(layer)), &at.chunk)?;
                self.leave(&at, asked)?;
                if let Some(stream) = &mut self.stream {
                    stream.advance(false)?;
                }
            }
            ordinal += usize::from(is_moe);
            let by_group = self.weights.layers[layer].comes_by_group();
            if let (Some(stream), false) = (&mut self.stream, by_group) {
                stream.end(unit)?;
            }
        }
        if whole_model { self.lend_with_losses(asked, sink) } else { self.lend_all(asked, sink) }
    }

    /// The chunk's hidden states, on the device: embedded tokens in the first layer, else those that the layer before
    /// left; those of the next chunk are set on their way.
    fn arrive(&mut self, at: &At) -> Result<(), CudaError> {
        let d = self.config.hidden();
        let next = self.chunks.get(at.chunk.number + 1);
        // After a layer's last chunk comes the first of the next layer.
        let next = if at.layer > 0 || at.chunk.is_last { next.or(self.chunks.first()) } else { None };
        let next = next.filter(|_| !(at.chunk.is_whole() || at.ends && at.chunk.is_last));
        if let Hidden::Parked(parking) = &mut self.buffers.stream {
            if let Some(next) = next {
                parking.bring(self.turn + 1, next.elements(d))?;
            }
            if at.layer == 0 || !at.chunk.is_whole() {
                parking.begin(self.turn)?;
            }
        }
        if at.layer == 0 {
            let embedding = self.weights.embedding.rows(&self.gpu.device)?;
            let buffers = &mut self.buffers;
            let stream = &mut buffers.stream.chunk(&at.chunk, self.turn, d)?;
            self.operations.gather.run(embedding, d, buffers.ids.part(at.chunk.rows.clone())?, stream)?;
            self.timeline.mark("embedding")?;
        }
        Ok(())
    }

    /// From the residual stream to what the block after attention takes.
    fn attend(&mut self, at: &At, asked: &mut Asked<'_, '_>) -> Result<(), ModelError> {
        let At { layer, chunk, .. } = at;
        self.input_norm(at)?;
        let before =
            if *layer == 0 { ProbePoint::Embedding } else { ProbePoint::LayerOutput(index(*layer - 1)) };
        self.observe(asked, before, chunk)?;
        self.attention(*layer, chunk)?;
        self.observe(asked, ProbePoint::AttentionOutput(index(*layer)), chunk)?;
        Ok(self.residual_norm(Some(*layer), chunk)?)
    }

    /// What a layer leaves behind for the next one, or for the head.
    fn leave(&mut self, at: &At, asked: &mut Asked<'_, '_>) -> Result<(), ModelError> {
        let At { layer, chunk, ends } = at;
        if *ends && asked.is_whole_model() {
            self.residual_norm(None, chunk)?;
            self.observe(asked, ProbePoint::LayerOutput(index(*layer)), chunk)?;
            self.observe(asked, ProbePoint::FinalNorm, chunk)?;
            self.losses(asked, chunk)?;
        } else if !*ends && !chunk.is_whole() {
            // Another chunk needs the room of what is to be added. A residual sum comes with a norm, which nobody reads.
            self.residual_norm(Some(*layer), chunk)?;
        }
        if chunk.is_whole() {
            return Ok(());
        }
        if let Hidden::Parked(parking) = &mut self.buffers.stream {
            if *ends {
                parking.drop_turn(self.turn)?;
            } else {
                parking.leave(self.turn, chunk.elements(self.config.hidden()))?;
            }
        }
        self.turn += 1;
        Ok(())
    }

    /// Norms the stream for attention; in a pass of one chunk, what the layer before left to be added is added first.
    fn input_norm(&mut self, At { layer, chunk, .. }: &At) -> Result<(), CudaError> {
        let (eps, d) = (self.config.rms_norm_eps() as f32, self.config.hidden());
        let elements = chunk.len() * d;
        let (buffers, weight) = (&mut self.buffers, self.weights.layers[*layer].input_norm.all());
        let normed = &mut buffers.normed.part_mut(0..elements)?;
        let mut stream = buffers.stream.chunk(chunk, self.turn, d)?;
        if *layer == 0 || !chunk.is_whole() {
            self.operations.norm.run(stream.all(), weight, eps, normed)?;
        } else {
            let added = buffers.added.part(0..elements)?;
            self.operations.norm.run_with_residual(&mut stream, added, weight, eps, normed)?;
        }
        self.timeline.mark("norms")
    }

    /// Adds a block's output to the stream and norms that, after attention of a layer or after all of them.
    fn residual_norm(&mut self, layer: Option<usize>, chunk: &Chunk) -> Result<(), CudaError> {
        let (eps, d) = (self.config.rms_norm_eps() as f32, self.config.hidden());
        let elements = chunk.len() * d;
        let weights = &self.weights;
        let weight =
            layer.map_or(&weights.final_norm, |layer| &weights.layers[layer].post_attention_norm).all();
        let buffers = &mut self.buffers;
        let (added, normed) = (buffers.added.part(0..elements)?, &mut buffers.normed.part_mut(0..elements)?);
        let stream = &mut buffers.stream.chunk(chunk, self.turn, d)?;
        self.operations.norm.run_with_residual(stream, added, weight, eps, normed)?;
        self.timeline.mark("norms")
    }

    fn attention(&mut self, layer: usize, chunk: &Chunk) -> Result<(), CudaError> {
        let n = chunk.len();
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
        ops.rotary.run(&mut qkv, turned, buffers.positions.part(chunk.rows.clone())?, tables)?;
        self.timeline.mark("rotary")?;
        let lent = qkv.all();
        let rows = AttentionRows {
            queries: lent.part(0..n * row - 2 * keys)?,
            keys: lent.part(queries..n * row - keys)?,
            values: lent.part(queries + keys..n * row)?,
            stride: row,
        };
        ops.attention.run(&rows, &buffers.sequences[chunk.number], &mut mixed)?;
        self.timeline.mark("attention")?;
        let bias = weights.output_bias.as_ref().map(|bias| bias.all());
        let output = weights.output.restored(&ops.dequantise, &mut scratch)?;
        self.timeline.mark("dequantise")?;
        ops.output.run(mixed.all(), output, bias, &mut buffers.added.part_mut(0..n * d)?)?;
        self.timeline.mark("output product")
    }

    fn dense(&mut self, layer: usize, chunk: &Chunk) -> Result<(), CudaError> {
        let n = chunk.len();
        let Block::Dense(block) = &self.weights.layers[layer].block else { return Ok(()) };
        let Some(products) = &self.operations.dense else { return Ok(()) };
        let (d, f) = (self.config.hidden(), self.config.dense_width());
        let buffers = &mut self.buffers;
        let (mut middle, rest) = carve(buffers.work.all_mut(), n * f)?;
        let x = Whole { rows: buffers.normed.part(0..n * d)?, offsets: buffers.whole.part(chunk.offsets())? };
        let (mut scratch, out) = (buffers.restored.all_mut(), &mut buffers.added.part_mut(0..n * d)?);
        self.operations.feed_forward((block, products), x, (&mut middle, rest), &mut scratch, out)?;
        self.timeline.mark("dense block")
    }

    /// Shows the probe, if there is one, what a chunk has at a point.
    fn observe(
        &mut self,
        asked: &mut Asked<'_, '_>,
        point: ProbePoint,
        chunk: &Chunk,
    ) -> Result<(), ModelError> {
        let Some(probe) = asked.probe.as_deref_mut() else { return Ok(()) };
        let (d, buffers) = (self.config.hidden(), &mut self.buffers);
        let device = &self.gpu.device;
        let values = match point {
            ProbePoint::AttentionOutput(_) | ProbePoint::MlpOutput(_) => {
                device.download(buffers.added.part(0..chunk.len() * d)?)?
            }
            ProbePoint::FinalNorm => device.download(buffers.normed.part(0..chunk.len() * d)?)?,
            _ => device.download(buffers.stream.chunk(chunk, self.turn, d)?.all())?,
        };
        let wide: Vec<f32> = values.into_iter().map(Element::widen).collect();
        probe.observe(point, chunk.rows.clone(), &wide);
        Ok(())
    }
}

fn index(layer: usize) -> LayerIndex {
    LayerIndex(layer as u16)
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
