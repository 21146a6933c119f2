//! How a run is carried out: free to change between two calls, without a trace in the data.

use serde::{Deserialize, Serialize};

/// Settings that change speed and memory, never a byte of a shard; logged with each commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Execution {
    /// Most tokens in one pass, until memory runs out; a longer sample is a pass of its own.
    pub tokens_per_pass: usize,
    /// Threads for products and for encoding.
    pub threads: usize,
    /// What computes: `cpu`, later also a GPU's name.
    pub device: String,
}
