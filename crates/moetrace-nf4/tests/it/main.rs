//! The crate through its public interface.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![expect(clippy::panic, reason = "a function that finds the wrong thing has found a failed test")]

mod golden;
mod properties;
mod refused;
mod states;
