//! Traces through the public interface: written, read back, refused, damaged.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod damage;
mod files;
mod fixture;
mod refuse;
mod round_trip;
