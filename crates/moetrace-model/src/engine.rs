//! The seam between whoever runs passes and whatever computes them.

use std::fmt;

use moetrace_nf4::Nf4Settings;
use moetrace_routing::{RoutingGeometry, RoutingSink, TokenBatch};

use crate::ModelError;

/// Runs packed batches through a model and lends each layer's routing to a sink.
pub trait Engine {
    /// What the sink must know before the first pass.
    fn geometry(&self) -> &RoutingGeometry;

    /// One pass: `begin`, `record` for each MoE layer in ascending order, `end`.
    ///
    /// # Errors
    /// The first thing that goes wrong; the sink hears nothing after it.
    fn run(&mut self, batch: &TokenBatch, sink: &mut dyn RoutingSink) -> Result<(), ModelError>;

    /// What it holds, and what it did since it was made. Nothing, unless it says otherwise.
    fn usage(&self) -> EngineUsage {
        EngineUsage::default()
    }

    /// After an error that [is out of memory](ModelError::is_out_of_memory): gives memory back, so that passes of half
    /// as many tokens can be tried. Says how many tokens a pass may have from now on; `None` if it can be no smaller.
    ///
    /// # Errors
    /// Where the smaller memory cannot be had either.
    fn halve(&mut self) -> Result<Option<usize>, ModelError> {
        Ok(None)
    }
}

/// What an engine holds and has done.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct EngineUsage {
    /// Bytes of device memory: weights and buffers, without the driver's own.
    pub device_bytes: u64,
    /// Bytes of page-locked host memory.
    pub host_bytes: u64,
    /// Milliseconds of all passes on the device, from their first operation to their last.
    pub passes_ms: f64,
    /// Those of them in which no operation could go on before weights or hidden states had come.
    pub waited_ms: f64,
}

/// How a model's weights are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Precision {
    /// 32 bits.
    #[default]
    F32,
    /// bfloat16.
    Bf16,
    /// IEEE half precision.
    F16,
    /// 4 bits in attention, dense and expert projections; what stays out is in [`TensorRole`](crate::TensorRole).
    Nf4,
}

impl Precision {
    /// The type of activations unless another is asked for: the weights' own, bf16 under NF4.
    pub fn compute_dtype(self) -> ComputeDtype {
        match self {
            Self::F32 => ComputeDtype::F32,
            Self::Bf16 | Self::Nf4 => ComputeDtype::Bf16,
            Self::F16 => ComputeDtype::F16,
        }
    }

    /// The type of activations, where `asked` may name another than the weights' own with 4-bit weights only.
    pub(crate) fn computing_in(self, asked: Option<ComputeDtype>) -> Result<ComputeDtype, ModelError> {
        let own = self.compute_dtype();
        match asked {
            Some(found) if self != Self::Nf4 && found != own => {
                Err(ModelError::ComputeDtype { precision: self, found, expected: own })
            }
            asked => Ok(asked.unwrap_or(own)),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::Nf4 => "nf4",
        })
    }
}

/// The values a model computes with; on the CPU products are f32, rounded where the reference rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ComputeDtype {
    /// 32-bit activations.
    #[default]
    F32,
    /// bfloat16 activations.
    Bf16,
    /// Activations in IEEE half precision; beyond 65,504 they become infinite, which is an error.
    F16,
}

impl fmt::Display for ComputeDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        })
    }
}

/// How a dense checkpoint is quantised under [`Precision::Nf4`]; a 4-bit checkpoint is taken as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Quantisation {
    /// Block size and double quantisation.
    pub nf4: Nf4Settings,
    /// Quantise routers and shared-expert gates too where the reference model has them as linear modules, as
    /// transformers with bitsandbytes does (all families but DeepSeek v1, whose router is a bare parameter).
    pub router: bool,
}

/// In what type the router computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum RouterDtype {
    /// Rounds where the family's reference implementation rounds.
    #[default]
    Model,
    /// Logits, softmax and weights in f32, as serving engines do.
    F32,
}

impl fmt::Display for RouterDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Model => "model",
            Self::F32 => "f32",
        })
    }
}
