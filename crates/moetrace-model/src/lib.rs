//! In: a checkpoint folder (`config.json` and safetensors) and packed token batches.
//! Out: each MoE layer's routing, lent to a sink; on request token losses and intermediate tensors; or the
//! checkpoint written anew in 4 bits.
//! Holds: the five families, [`ModelConfig`], the [`Checkpoint`] store, the [`Engine`] trait, [`CpuEngine`], [`CudaEngine`].
//! Not here: text, tokenizers, trace files, metrics; it prints nothing and reads no clock or environment variable.
//!
//! The CPU engine is the readable definition of what a pass computes: other engines must agree with it.
//! Shape letters as everywhere: N packed tokens, D hidden, E experts, K chosen, F expert width, H heads.

mod angles;
mod checkpoint;
mod config;
mod cpu;
mod cuda;
mod engine;
mod error;
mod family;
mod quantise;
pub mod synthetic;
mod write;

pub use checkpoint::{Checkpoint, CheckpointSettings, StorageType, TensorEntry, TensorRole};
pub use config::ModelConfig;
pub use cpu::{CpuEngine, CpuSettings, MemoryEstimate, Probe, ProbePoint};
pub use cuda::{
    Budget, CudaEngine, CudaMemory, CudaMemoryPlan, CudaSettings, Gpu, GpuSpeed, LARGEST_PASS, Lack,
    LayerBytes, MOST_PASS, Offload, PRESETS, Place, Placement, Planned, Preset, Shortfall, SpeedEstimate,
    WeightBytes, Wishes,
};
pub use engine::{ComputeDtype, Engine, EngineUsage, Precision, Quantisation, RouterDtype};
pub use error::ModelError;
pub use family::Family;
pub use moetrace_nf4::{BlockSize, ElementType, Nf4Error, Nf4Settings, ScaleMap};
pub use quantise::{QuantiseSettings, files_beside, quantise_checkpoint};
pub use write::{SHARD_BYTES, WriteEvent, WrittenCheckpoint};
