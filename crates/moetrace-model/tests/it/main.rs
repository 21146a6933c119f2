//! The model crate through its public interface.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod batches;
mod bf16;
mod checkpoints;
mod configs;
mod losses;
mod parity;
mod recorder;
mod synthetic;
