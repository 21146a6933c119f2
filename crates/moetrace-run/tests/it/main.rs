//! Runs through the public interface: a real folder, a real trace format, an engine that costs nothing.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod commit;
mod compare;
mod damage;
mod derived;
mod halving;
mod overlap;
mod refuse;
mod resume;
mod sharing;
mod support;
mod verify;
