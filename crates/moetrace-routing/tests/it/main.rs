//! The waist through its public interface.

mod tee;
mod view;
