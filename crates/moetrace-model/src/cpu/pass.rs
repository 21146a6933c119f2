//! One pass through all layers.

use candle_core::{DType, Device, Tensor};
use candle_nn::ops::rms_norm;
use moetrace_routing::{
    HiddenRows, LayerIndex, MoeOrdinal, Planes, RoutingPlanes, RoutingSink, RoutingView, TokenBatch,
};

use super::attention::{HeadShape, attend};
use super::experts;
use super::head::losses;
use super::numbers::{floats, rowwise};
use super::probe::{Probe, ProbePoint};
use super::product::linear;
use super::rotary::Rotation;
use super::router::{RouterRules, Routing, route};
use super::weights::{Block, LayerWeights, MoeWeights, Projection, Weights};
use crate::family::QkNorm;
use crate::{ComputeDtype, ModelConfig, ModelError};

/// Everything a pass reads.
pub(super) struct Pass<'a> {
    pub(super) config: &'a ModelConfig,
    pub(super) weights: &'a Weights,
    pub(super) compute: ComputeDtype,
    pub(super) router: RouterRules,
    pub(super) threads: usize,
    pub(super) batch: &'a TokenBatch,
    pub(super) planes: Planes,
    /// Computes; sink and probe are called from the caller's own thread.
    pub(super) pool: &'a rayon::ThreadPool,
}

/// One layer's routing with its optional planes, kept until it is lent to the sink.
struct Recorded {
    ordinal: MoeOrdinal,
    routing: Routing,
    shared_gate: Option<Vec<f32>>,
    hidden: Option<Vec<f32>>,
}

impl Pass<'_> {
    /// Runs the layers, records each MoE layer, and stops where nobody needs the rest.
    pub(super) fn run(
        &self,
        sink: &mut dyn RoutingSink,
        mut probe: Option<&mut dyn Probe>,
    ) -> Result<(), ModelError> {
        let whole_model = self.planes.nll || probe.is_some();
        let last_ordinal = self.config.geometry().layers().len() - 1;
        let rotation = Rotation::new(
            self.batch.positions(),
            self.config.head_width(),
            self.config.rope_theta(),
            self.compute,
        )?;
        let mut x = self.embed()?;
        self.observe(&mut probe, ProbePoint::Embedding, &x)?;
        let mut ordinal = 0;
        let mut last = None;
        for (number, layer) in self.weights.layers.iter().enumerate() {
            let index = LayerIndex(number as u16);
            let attended = self.pool.install(|| self.attention(&x, layer, &rotation))?;
            self.observe(&mut probe, ProbePoint::AttentionOutput(index), &attended)?;
            x = self.add(&x, &attended)?;
            let h = self.pool.install(|| self.norm(&x, &layer.post_attention_norm))?;
            let block = match &layer.block {
                Block::Dense(block) => self.pool.install(|| experts::dense(&h, block, self.compute))?,
                Block::Moe(block) => {
                    let recorded = self.pool.install(|| self.route(&h, block, index, MoeOrdinal(ordinal)))?;
                    self.observe_routing(&mut probe, index, &recorded.routing);
                    let is_last = usize::from(ordinal) == last_ordinal;
                    ordinal += 1;
                    if !(is_last && self.planes.nll) {
                        self.record(&recorded, None, sink)?;
                    }
                    if is_last && !whole_model {
                        return Ok(());
                    }
                    let gates = recorded.shared_gate.as_deref();
                    let mixed = self
                        .pool
                        .install(|| experts::moe(&h, block, &recorded.routing, gates, self.compute))?;
                    last = Some(recorded);
                    mixed
                }
            };
            self.observe(&mut probe, ProbePoint::MlpOutput(index), &block)?;
            x = self.add(&x, &block)?;
            self.observe(&mut probe, ProbePoint::LayerOutput(index), &x)?;
        }
        let x = self.pool.install(|| self.norm(&x, &self.weights.final_norm))?;
        self.observe(&mut probe, ProbePoint::FinalNorm, &x)?;
        let nll = losses(&x, &self.weights.head, self.batch, (self.pool, self.threads), probe)?;
        match last.filter(|_| self.planes.nll) {
            Some(recorded) => self.record(&recorded, Some(&nll), sink),
            None => Ok(()),
        }
    }

    fn embed(&self) -> Result<Tensor, ModelError> {
        let ids: Vec<u32> = self.batch.token_ids().iter().map(|id| id.0).collect();
        let ids = Tensor::new(ids, &Device::Cpu)?;
        Ok(self.weights.embedding.index_select(&ids, 0)?.to_dtype(DType::F32)?)
    }

    fn add(&self, x: &Tensor, y: &Tensor) -> Result<Tensor, ModelError> {
        let compute = self.compute;
        Ok(self.pool.install(|| rowwise(x, y, |x, y| compute.round_value(x + y)))?)
    }

    /// RMSNorm (Zhang and Sennrich 2019, arXiv 1910.07467), rounded before the weight is multiplied in.
    fn norm(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor, ModelError> {
        let eps = self.config.rms_norm_eps() as f32;
        let normed = match self.compute {
            ComputeDtype::F32 => rms_norm(x, weight, eps)?,
            rounded => {
                let plain = rounded.round(rms_norm(x, &weight.ones_like()?, eps)?)?;
                rowwise(&plain, weight, |x, weight| rounded.round_value(x * weight))?
            }
        };
        Ok(normed)
    }

    fn project(&self, x: &Tensor, projection: &Projection) -> Result<Tensor, ModelError> {
        let mut y = projection.weight.linear(x, self.compute, self.threads)?;
        if let Some(bias) = &projection.bias {
            y = rowwise(&y, bias, |y, bias| y + bias)?;
        }
        Ok(self.compute.round(y)?)
    }

    fn attention(&self, x: &Tensor, layer: &LayerWeights, rotation: &Rotation) -> Result<Tensor, ModelError> {
        let (x, weights) = (&self.norm(x, &layer.input_norm)?, &layer.attention);
        let (heads, kv_heads, width) =
            (self.config.heads(), self.config.kv_heads(), self.config.head_width());
        let n = self.batch.len();
        let rotated = |projection, heads, norm: &Option<Tensor>| -> Result<Tensor, ModelError> {
            let y = self.project(x, projection)?;
            let y = match (norm, self.config.family().rules().qk_norm) {
                (Some(norm), QkNorm::FullWidth) => self.norm(&y, norm)?,
                (Some(norm), _) => self.norm(&y.reshape((n * heads, width))?, norm)?,
                (None, _) => y,
            };
            Ok(self.compute.round(rotation.apply(&y.reshape((n, heads, width))?)?)?)
        };
        let q = rotated(&weights.query, heads, &weights.query_norm)?;
        let k = rotated(&weights.key, kv_heads, &weights.key_norm)?;
        let v = self.project(x, &weights.value)?;
        let shape = HeadShape { heads, kv_heads, width };
        let mixed = attend([&q, &k, &v], self.batch.spans(), shape, self.compute)?;
        self.project(&mixed, &weights.output)
    }

    fn route(
        &self,
        h: &Tensor,
        weights: &MoeWeights,
        layer: LayerIndex,
        ordinal: MoeOrdinal,
    ) -> Result<Recorded, ModelError> {
        let logits = linear(h, &weights.router.to_dtype(DType::F32)?, self.threads)?;
        let routing = route(floats(&logits)?.to_vec(), layer, &self.router)?;
        let shared_gate = weights.shared_gate.as_ref().map(|gate| self.shared_gate(h, gate)).transpose()?;
        let hidden = if self.planes.hidden { Some(self.hidden_rows(h)?) } else { None };
        Ok(Recorded { ordinal, routing, shared_gate, hidden })
    }

    /// Sigmoid of the shared expert's gate, `[N]`.
    fn shared_gate(&self, h: &Tensor, gate: &Tensor) -> Result<Vec<f32>, ModelError> {
        let logits = linear(h, &gate.to_dtype(DType::F32)?, self.threads)?;
        let mut gates = floats(&logits)?.to_vec();
        self.compute.round_slice(&mut gates);
        for gate in &mut gates {
            *gate = 1.0 / (1.0 + (-*gate).exp());
        }
        self.compute.round_slice(&mut gates);
        Ok(gates)
    }

    fn hidden_rows(&self, h: &Tensor) -> Result<Vec<f32>, ModelError> {
        let (values, d) = (floats(h)?, self.config.hidden());
        let rows = self.batch.hidden_rows().iter();
        Ok(rows.flat_map(|row| values[*row as usize * d..][..d].iter().copied()).collect())
    }

    fn record(
        &self,
        recorded: &Recorded,
        nll: Option<&[f32]>,
        sink: &mut dyn RoutingSink,
    ) -> Result<(), ModelError> {
        let routing = &recorded.routing;
        let rows = self.batch.hidden_rows();
        let planes = RoutingPlanes {
            experts: &routing.experts,
            weights: Some(&routing.weights),
            margins: Some(&routing.margins),
            gate_entropy: Some(&routing.gate_entropy),
            logits: self.planes.logits.then_some(routing.logits.as_slice()),
            shared_gate: recorded.shared_gate.as_deref().filter(|_| self.planes.shared_gate),
            hidden: recorded.hidden.as_deref().map(|values| HiddenRows { rows, values }),
            nll,
        };
        let view = RoutingView::new(self.config.geometry(), recorded.ordinal, self.batch.len(), planes)?;
        Ok(sink.record(&view)?)
    }

    fn observe_routing(&self, probe: &mut Option<&mut dyn Probe>, layer: LayerIndex, routing: &Routing) {
        if let Some(probe) = probe.as_deref_mut() {
            let rows = 0..self.batch.len();
            probe.observe(ProbePoint::RouterLogits(layer), rows.clone(), &routing.logits);
            probe.observe(ProbePoint::RouterScores(layer), rows, &routing.scores);
        }
    }

    fn observe(
        &self,
        probe: &mut Option<&mut dyn Probe>,
        point: ProbePoint,
        values: &Tensor,
    ) -> Result<(), ModelError> {
        if let Some(probe) = probe.as_deref_mut() {
            probe.observe(point, 0..self.batch.len(), &floats(values)?);
        }
        Ok(())
    }
}
