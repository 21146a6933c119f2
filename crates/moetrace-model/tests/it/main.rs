//! The model crate through its public interface.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![expect(clippy::panic, reason = "a function that finds the wrong thing has found a failed test")]

mod batches;
mod bf16;
mod cases;
mod checkpoints;
mod configs;
mod cuda_memory;
mod cuda_plan;
mod cuda_speed;
mod four_bit_files;
mod losses;
mod naive;
mod nf4;
mod parity;
mod recorder;
mod synthetic;
mod worst;
mod writing;
