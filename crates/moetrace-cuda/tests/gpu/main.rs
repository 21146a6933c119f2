//! Every kernel on a GPU against its definition on the CPU.
//!
//! `MOETRACE_TEST_CUDA=1` asks for a GPU; then its absence fails every test. Without it nothing is compared, and one
//! line says so. `MOETRACE_TEST_CUDA_DEVICE` chooses another GPU than 0. CUDA's libraries are looked for in
//! `CUDA_HOME`, `CUDA_PATH`, the folders of `MOETRACE_SITE_PACKAGES`, and where toolkits usually are.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![expect(clippy::panic, reason = "a GPU that was asked for and is missing is a failed test")]

mod elementwise;
mod experts;
mod memory;
mod nf4;
mod router;
mod support;
