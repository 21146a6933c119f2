//! How fast a placement should be, from a GPU's rates and the model's shapes.
//!
//! A chunk of C tokens takes a layer `C * operations / rate + restored bytes / bandwidth + 0.15 ms`. The sum over the
//! layers of DeepSeek-MoE-16B in 4 bits, with the constants below, is within 2 % of what one H200 showed (tested):
//!
//! | tokens of a chunk | measured, tokens/s |
//! |---|---|
//! | 4,096 | 82,600 |
//! | 10,240 | 101,300 |
//! | 40,960 | 113,600 |
//!
//! These lie on a line of 15.0 ms and 8.44 us a token: 4.74 GFLOP in 8.44 us are 70 % of the 798 TFLOP/s that a large
//! product reaches there. Of the 15.0 ms, 11 are what restoring 15.4 billion weights takes at 3.7 TB/s, as its kernel was
//! measured; 0.15 ms a layer remain: launches, and waves of tiles that are not full. So the share of the matrix rate that
//! is reached grows with the chunk.
//!
//! On other GPUs this is an estimate: shares are an H200's.

use super::super::memory::CudaMemoryPlan;
use super::hidden::smallest_hidden_pass;
use super::timing::{Unit, pass_seconds};
use super::work::LayerWork;
use crate::cuda::placement::{Place, Placement};
use crate::{ComputeDtype, Precision};

/// What products of all layers reach of the rate of a large one.
const PRODUCT_SHARE: f64 = 0.704;
/// What restoring reaches of the memory's bandwidth: 3.7 of 4.8 TB/s.
const RESTORE_SHARE: f64 = 0.77;
/// Seconds a layer and chunk besides.
const LAYER_SECONDS: f64 = 0.15e-3;
/// Seconds that each further group of experts takes besides: a third of that, since its operations are a third of a
/// layer's. Not measured.
const GROUP_SECONDS: f64 = LAYER_SECONDS / 3.0;
/// What the plain kernels of f32 reach of a large product's rate in 16 bits: a guess on the slow side, not measured.
const F32_SHARE: f64 = 0.01;
/// Bytes a second of a disk: what a solid-state drive of the last years reads at the least. Not measured.
const DISK: f64 = 3e9;

/// Rates of a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuSpeed {
    /// Operations a second of a large bf16 product with sums in f32.
    pub matrix: u64,
    /// Bytes a second of its memory.
    pub memory: u64,
    /// Bytes a second from page-locked host memory.
    pub bus: u64,
    /// Whether passes were measured on such a GPU.
    pub measured: bool,
}

/// How fast a placement should be, with what that comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SpeedEstimate {
    /// The GPU.
    pub gpu: GpuSpeed,
    /// Tokens a second.
    pub tokens_per_second: f64,
    /// Seconds of a full pass.
    pub pass_seconds: f64,
    /// Seconds of it that are arithmetic.
    pub compute_seconds: f64,
    /// Operations per token.
    pub operations: f64,
    /// Operations a second that products run at.
    pub rate: f64,
    /// Seconds that restoring 4-bit weights takes in a pass; part of the arithmetic.
    pub restore_seconds: f64,
    /// Bytes of weights copied to the device in a pass.
    pub copied: u64,
    /// Bytes of the largest layer that is copied, and the seconds that takes.
    pub largest_copy: (u64, f64),
    /// Seconds that a token takes of such a layer's arithmetic.
    pub layer_seconds: f64,
    /// The least tokens of a pass at which copies hide behind arithmetic; `None` if none are made or none is long enough.
    pub hidden_from: Option<usize>,
}

impl SpeedEstimate {
    /// For a placement, in texts of `longest` tokens.
    pub(super) fn new(
        plan: &CudaMemoryPlan<'_>,
        gpu: GpuSpeed,
        placement: &Placement,
        longest: usize,
    ) -> Self {
        let pace = Pace::new(plan, gpu, longest);
        let (pass_seconds, compute_seconds) = pace.seconds(placement);
        let tokens = placement.tokens_per_pass as f64;
        let streamed = |layer: &usize| placement.layers[*layer] != Place::Device;
        let bytes = |layer: usize| plan.weights().layers[layer].total();
        let layers = 0..placement.layers.len();
        let largest = layers.clone().filter(streamed).max_by_key(|layer| bytes(*layer));
        let restored: f64 = pace.layers.iter().map(|w| w.front_restored + w.experts_restored).sum();
        let work = largest.and_then(|layer| pace.layers.get(layer)).copied().unwrap_or_default();
        Self {
            gpu,
            tokens_per_second: tokens / pass_seconds.max(f64::MIN_POSITIVE),
            pass_seconds,
            compute_seconds,
            operations: pace.layers.iter().map(|work| work.operations()).sum(),
            rate: pace.rate,
            restore_seconds: chunks(placement) * restored / pace.bandwidth,
            copied: layers.filter(streamed).map(bytes).fold(0, u64::saturating_add),
            largest_copy: largest.map_or((0, 0.0), |layer| {
                (bytes(layer), bytes(layer) as f64 / pace.copy_rate(placement.layers[layer]))
            }),
            layer_seconds: work.operations() / pace.rate,
            hidden_from: smallest_hidden_pass(&pace, placement),
        }
    }

    /// The share of a pass during which the device waits for copies.
    pub fn waiting(&self) -> f64 {
        if self.pass_seconds > 0.0 { (1.0 - self.compute_seconds / self.pass_seconds).max(0.0) } else { 0.0 }
    }
}

/// A model on a GPU: all that passes of any placement take their time from.
pub(super) struct Pace<'a> {
    plan: &'a CudaMemoryPlan<'a>,
    /// Those that are computed: none behind the last router, unless losses are asked for.
    layers: Vec<LayerWork>,
    rate: f64,
    bandwidth: f64,
    bus: f64,
}

impl<'a> Pace<'a> {
    pub(super) fn new(plan: &'a CudaMemoryPlan<'a>, gpu: GpuSpeed, longest: usize) -> Self {
        let config = plan.config;
        let is_f32 = matches!(
            plan.settings.precision.computing_in(plan.settings.compute),
            Ok(ComputeDtype::F32) | Err(_)
        );
        let restored = (plan.settings.precision == Precision::Nf4).then_some(plan.element);
        let last = (0..config.layers()).rfind(|layer| config.is_moe(*layer));
        let computed =
            if plan.settings.planes.nll { config.layers() } else { last.map_or(0, |last| last + 1) };
        let layers = (0..computed).map(|layer| {
            let ends = !plan.settings.planes.nll && Some(layer) == last;
            LayerWork::new(config, layer, longest, (plan.weights().layers[layer], restored), ends)
        });
        Self {
            plan,
            layers: layers.collect(),
            rate: gpu.matrix.max(1) as f64 * if is_f32 { F32_SHARE } else { PRODUCT_SHARE },
            bandwidth: gpu.memory.max(1) as f64 * RESTORE_SHARE,
            bus: gpu.bus.max(1) as f64,
        }
    }

    fn copy_rate(&self, place: Place) -> f64 {
        if place == Place::Disk { self.bus.min(DISK) } else { self.bus }
    }

    /// Seconds of a full pass, and of the arithmetic in it.
    pub(super) fn seconds(&self, placement: &Placement) -> (f64, f64) {
        let tokens = placement.tokens_per_pass as f64;
        let hidden_bytes = tokens * (self.plan.config.hidden() * self.plan.element) as f64;
        // There and back at once: a bus is as fast in both directions.
        let parked = if placement.parks_hidden { hidden_bytes / self.bus } else { 0.0 };
        let (mut units, mut compute) = (Vec::new(), 0.0);
        for (layer, place) in placement.layers.iter().enumerate().take(self.layers.len()) {
            self.units(layer, *place, placement, parked, &mut units);
        }
        for unit in &units {
            compute += unit.compute;
        }
        // Hidden states that come and go hold up the copies of weights, and are waited for themselves.
        for unit in &mut units {
            unit.compute = unit.compute.max(if placement.expert_groups > 1 { 0.0 } else { parked });
        }
        // Rows of an embedding on the host are fetched by a kernel, which is work and no waiting.
        let fetched = if placement.embedding == Place::Device { 0.0 } else { hidden_bytes / self.bus };
        (pass_seconds(&units) + fetched, compute + fetched)
    }

    /// A layer, or its front and its groups of experts.
    fn units(&self, layer: usize, place: Place, placement: &Placement, parked: f64, units: &mut Vec<Unit>) {
        let (work, bytes) = (self.layers[layer], self.plan.weights().layers[layer]);
        let (tokens, chunks) = (placement.tokens_per_pass as f64, chunks(placement));
        let compute = |operations: f64, restored: f64| {
            tokens * operations / self.rate + chunks * restored / self.bandwidth
        };
        let copy = |bytes: f64| (place != Place::Device).then(|| bytes / self.copy_rate(place) + parked);
        let overhead = chunks * LAYER_SECONDS;
        let groups = placement.expert_groups.max(1);
        if groups == 1 {
            let restored = work.front_restored + work.experts_restored;
            let compute = compute(work.operations(), restored) + overhead;
            units.push(Unit { compute, copy: copy(bytes.total() as f64) });
            return;
        }
        let front = compute(work.front, work.front_restored) + overhead;
        units.push(Unit { compute: front, copy: copy(bytes.front as f64) });
        let of_group = 1.0 / groups as f64;
        let group = compute(work.experts * of_group, work.experts_restored * of_group) + GROUP_SECONDS;
        if bytes.experts > 0 {
            let group = Unit { compute: group, copy: copy(bytes.experts as f64 * of_group) };
            units.extend(std::iter::repeat_n(group, groups));
        }
    }
}

fn chunks(placement: &Placement) -> f64 {
    placement.tokens_per_pass.div_ceil(placement.tokens_per_chunk.max(1)) as f64
}
