//! The crate through its public interface.

mod golden;
mod properties;
mod refused;
mod states;
