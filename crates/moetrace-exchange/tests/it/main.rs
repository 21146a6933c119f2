//! Foreign files into runs and runs into foreign files, through the public interface.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod esft;
mod flame;
mod npy;
mod round_trip;
mod support;
