//! The CUDA engine against the reference implementations, against the CPU engine, and against itself.

mod against_cpu;
mod alone;
mod comparison;
mod parity;
mod placed;
mod support;
