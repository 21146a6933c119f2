//! The CPU engine: the definition of what a pass computes.
//!
//! In bf16 every product is an f32 product of bf16 values (candle has no bf16 product on the CPU), and values are
//! rounded to bf16, to nearest even, at these points (in f16 to f16 at the same):
//!
//! | point | what is rounded |
//! |---|---|
//! | weights | every tensor, once, when it is loaded; under NF4 each restored element, once, when it is used |
//! | norm | x / rms before the weight is multiplied in, and again after it |
//! | q, k, v | after the bias |
//! | rotary | cosines and sines; then the rotated value, once |
//! | softmax | attention probabilities; scores before them stay f32 |
//! | o | the mixed values, which are its operand, and its result |
//! | router | logits; the scores too in `DeepSeek`'s gate; the weights; the shared expert's gate. Under `RouterDtype::F32` none of the first three |
//! | gate*up | silu(gate) * up, once |
//! | expert output | the result of each down projection |
//! | combine | the f32 sum of weighted experts, by ascending id, and the shared block, once |
//! | residual | each sum of the stream and a block |
//!
//! Logits of the language-model head and losses stay f32.

mod attention;
mod decode;
mod experts;
mod head;
mod load;
mod matrix;
mod memory;
mod numbers;
mod pass;
mod probe;
mod product;
mod read;
mod rotary;
mod router;
mod weights;

use std::path::Path;

use moetrace_routing::{RoutingGeometry, RoutingPlanes, RoutingSink, RoutingView, TokenBatch};

use self::pass::Pass;
pub(crate) use self::router::RouterRules;
use self::weights::Weights;
use crate::{
    Checkpoint, CheckpointSettings, ComputeDtype, Engine, ModelConfig, ModelError, Precision, Quantisation,
    RouterDtype,
};

pub use self::memory::MemoryEstimate;
pub use self::probe::{Probe, ProbePoint};

/// More threads than any machine this runs on; a typing error otherwise asks for thousands of stacks.
const MOST_THREADS: usize = 1024;

/// How the CPU engine computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuSettings {
    /// How the weights are held.
    pub precision: Precision,
    /// The type of activations; [`Precision::compute_dtype`] unless given. Another than the weights' own is
    /// possible with 4-bit weights only.
    pub compute: Option<ComputeDtype>,
    /// How a dense checkpoint is quantised under [`Precision::Nf4`].
    pub quantisation: Quantisation,
    /// In what type the router computes.
    pub router_dtype: RouterDtype,
    /// Threads of its own pool, 1 or more; their number does not change any result.
    pub threads: usize,
}

impl CpuSettings {
    /// The type of activations.
    ///
    /// # Errors
    /// [`ModelError::ComputeDtype`] where dense weights are to be computed with in another type.
    pub fn compute_dtype(&self) -> Result<ComputeDtype, ModelError> {
        self.precision.computing_in(self.compute)
    }
}

impl Default for CpuSettings {
    fn default() -> Self {
        Self {
            precision: Precision::default(),
            compute: None,
            quantisation: Quantisation::default(),
            router_dtype: RouterDtype::default(),
            threads: 1,
        }
    }
}

/// A model in memory, computing on its own threads.
pub struct CpuEngine {
    config: ModelConfig,
    settings: CpuSettings,
    compute: ComputeDtype,
    weights: Weights,
    pool: rayon::ThreadPool,
}

impl std::fmt::Debug for CpuEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CpuEngine")
            .field("config", &self.config)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl CpuEngine {
    /// Opens a checkpoint folder and loads it.
    ///
    /// # Errors
    /// As [`Checkpoint::open`] and [`load`](Self::load).
    pub fn open(dir: &Path, settings: &CpuSettings) -> Result<Self, ModelError> {
        Self::load(&Checkpoint::open(dir, &CheckpointSettings::default())?, settings)
    }

    /// Reads the configuration beside the checkpoint, compares every tensor with it, and loads them all.
    ///
    /// # Errors
    /// As [`ModelConfig::read`]; [`ModelError::MissingTensor`], [`ModelError::Shape`] or
    /// [`ModelError::ExtraTensor`] where checkpoint and configuration disagree; [`ModelError::Threads`].
    pub fn load(checkpoint: &Checkpoint, settings: &CpuSettings) -> Result<Self, ModelError> {
        let threads = settings.threads;
        if !(1..=MOST_THREADS).contains(&threads) {
            return Err(ModelError::Threads { found: threads, limit: MOST_THREADS });
        }
        let config = ModelConfig::read(checkpoint.dir())?;
        let compute = settings.compute_dtype()?;
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .map_err(|source| ModelError::ThreadPool { threads, source })?;
        let weights = pool.install(|| load::load(checkpoint, &config, settings))?;
        Ok(Self { config, settings: *settings, compute, weights, pool })
    }

    /// Compares configuration, headers and settings as [`load`](Self::load) does, and reads no weight.
    ///
    /// # Errors
    /// As [`load`](Self::load), but for what only a tensor's values can show.
    pub fn check(checkpoint: &Checkpoint, settings: &CpuSettings) -> Result<(), ModelError> {
        let config = ModelConfig::read(checkpoint.dir())?;
        load::check(checkpoint, &config, settings).map(drop)
    }

    /// The model's configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// How it computes.
    pub fn settings(&self) -> &CpuSettings {
        &self.settings
    }

    /// Bytes of all weights in memory, activations and scratch apart; the map of 4-bit scales (1 KiB, shared by
    /// all tensors) is not counted.
    pub fn weight_bytes(&self) -> u64 {
        self.weights.bytes()
    }

    /// What a CPU engine for this configuration would hold.
    pub fn memory_estimate(config: &ModelConfig, settings: &CpuSettings) -> MemoryEstimate {
        memory::estimate(config, settings)
    }

    /// As [`Engine::run`], and shows `probe` the intermediate tensors; computes the whole model.
    ///
    /// # Errors
    /// As [`Engine::run`].
    pub fn run_with_probe(
        &mut self,
        batch: &TokenBatch,
        sink: &mut dyn RoutingSink,
        probe: &mut dyn Probe,
    ) -> Result<(), ModelError> {
        self.pass(batch, sink, Some(probe))
    }

    fn pass(
        &self,
        batch: &TokenBatch,
        sink: &mut dyn RoutingSink,
        probe: Option<&mut dyn Probe>,
    ) -> Result<(), ModelError> {
        let vocab = self.config.vocab();
        if let Some(row) = batch.token_ids().iter().position(|id| id.index() >= vocab) {
            return Err(ModelError::TokenRange { row, found: batch.token_ids()[row].0, vocab });
        }
        sink.begin(batch)?;
        let CpuSettings { router_dtype, threads, .. } = self.settings;
        let compute = self.compute;
        let pass = Pass {
            config: &self.config,
            weights: &self.weights,
            compute,
            router: RouterRules::new(&self.config, compute, router_dtype),
            threads,
            batch,
            planes: sink.wants(),
            pool: &self.pool,
        };
        if batch.is_empty() {
            self.record_nothing(sink)?;
        } else {
            pass.run(sink, probe)?;
        }
        Ok(sink.end()?)
    }

    /// A pass without tokens still tells the sink about every layer.
    fn record_nothing(&self, sink: &mut dyn RoutingSink) -> Result<(), ModelError> {
        let geometry = self.config.geometry();
        for ordinal in geometry.ordinals() {
            sink.record(&RoutingView::new(geometry, ordinal, 0, RoutingPlanes::of_no_tokens())?)?;
        }
        Ok(())
    }
}

impl Engine for CpuEngine {
    fn geometry(&self) -> &RoutingGeometry {
        self.config.geometry()
    }

    fn run(&mut self, batch: &TokenBatch, sink: &mut dyn RoutingSink) -> Result<(), ModelError> {
        self.pass(batch, sink, None)
    }
}
