//! The client against a server on loopback that speaks the Hub's routes, kind and unkind.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod bench;
mod datasets;
mod downloads;
mod hostile;
mod models;
mod offline;
mod secrets;
