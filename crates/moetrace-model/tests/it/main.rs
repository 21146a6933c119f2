//! The model crate through its public interface.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![expect(clippy::panic, reason = "a function that finds the wrong thing has found a failed test")]

mod batches;
mod bf16;
mod checkpoints;
mod configs;
mod losses;
mod naive;
mod parity;
mod recorder;
mod synthetic;
