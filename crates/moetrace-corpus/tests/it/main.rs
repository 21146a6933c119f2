//! The crate through its public API, on files and tokenizers made here.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod bad_rows;
mod chat;
mod common;
mod filters;
mod foreign;
mod formats;
mod goldens;
mod packing;
mod sampling;
mod tokenizer;
