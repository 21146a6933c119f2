//! In: a checkpoint folder (`config.json` and safetensors) and packed token batches.
//! Out: each MoE layer's routing, lent to a sink; on request token losses and intermediate tensors.
//! Holds: the five families, [`ModelConfig`], the [`Checkpoint`] store, the [`Engine`] trait, [`CpuEngine`].
//! Not here: text, tokenizers, trace files, metrics; it prints nothing and reads no clock or environment variable.
//!
//! The CPU engine is the readable definition of what a pass computes: other engines must agree with it.
//! Shape letters as everywhere: N packed tokens, D hidden, E experts, K chosen, F expert width, H heads.

mod checkpoint;
mod config;
mod cpu;
mod engine;
mod error;
mod family;
pub mod synthetic;

pub use checkpoint::{Checkpoint, CheckpointSettings, StorageType, TensorEntry};
pub use config::ModelConfig;
pub use cpu::{CpuEngine, CpuSettings, MemoryEstimate, Probe, ProbePoint};
pub use engine::{Engine, Precision, RouterDtype};
pub use error::ModelError;
pub use family::Family;
