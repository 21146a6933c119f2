//! Traces through the public interface: written, read back, damaged.

mod fixture;
mod round_trip;
