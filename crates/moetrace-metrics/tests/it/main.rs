//! The crate through its public API.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![expect(clippy::float_cmp, reason = "numbers that must be the same to the last bit are compared so")]

mod auxiliary_loss;
mod bos;
mod bounded;
mod clustering;
mod coactivation;
mod contexts;
mod contract;
mod counts;
mod cross_layer;
mod expert_counts;
mod fidelity;
mod groups;
mod merging;
mod metrics_set;
mod not_recorded;
mod segments;
mod specialisation;
mod temporal;
mod text;
mod vocabulary;
mod written;
