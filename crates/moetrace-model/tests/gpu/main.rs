//! Everything that needs a GPU, in one program that can be copied to where one is: the operations of moetrace-cuda, and
//! the CUDA engine made of them.
//!
//! `MOETRACE_TEST_CUDA=1` asks for a GPU; then its absence fails every test. Without it nothing is compared, and one
//! line says so. `MOETRACE_TEST_CUDA_DEVICE` chooses another GPU than 0. CUDA's libraries are looked for in
//! `CUDA_HOME`, `CUDA_PATH`, the folders of `MOETRACE_SITE_PACKAGES`, and where toolkits usually are.
//! `MOETRACE_TEST_CHECKER=1` leaves out what takes too long under compute-sanitizer.
//! `MOETRACE_FIXTURES` is where `parity` lies if not in the repository; further parity cases are looked for in
//! `MOETRACE_PARITY_EXTRA`.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![expect(clippy::panic, reason = "a GPU that was asked for and is missing is a failed test")]

#[path = "../it/cases.rs"]
mod cases;
mod engine;
mod operations;
#[path = "../it/recorder.rs"]
mod recorder;
mod support;
