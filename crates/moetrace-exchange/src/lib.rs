//! In: routing that other tools recorded (ESFT score files, FLAME-MoE Parquet, `NumPy` arrays); or a run of ours.
//! Out: a run folder as `collect` makes it; or files in layouts that other tools read.
//! Holds: one reader per foreign layout, the engine that plays them into a run, one writer per layout, atomic folders.
//! Not here: how a run is written or committed, the trace format, numbers about routing, flags, a terminal.
//!
//! `docs/exchange.md` says what each layout holds and what is lost on the way.

mod error;
mod export;
mod import;

pub use error::ExchangeError;
pub use export::{ExportLayout, Exported, export};
pub use import::{ImportHow, ImportLayout, ImportSettings, import};
