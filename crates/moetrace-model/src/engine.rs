//! The seam between whoever runs passes and whatever computes them.

use std::fmt;

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
}

/// The values a model computes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Precision {
    /// 32-bit weights and activations.
    #[default]
    F32,
    /// bfloat16 weights and activations; on the CPU f32 products, rounded where the reference rounds.
    Bf16,
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
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
