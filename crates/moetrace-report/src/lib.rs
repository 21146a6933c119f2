//! In: numbers about routing ([`MetricsReport`](moetrace_metrics::MetricsReport) and what goes with it), where they
//! come from, the strings of tokens.
//! Out: one HTML page that loads nothing, and every chart of it as SVG (feature `png`: as PNG too).
//! Holds: drawing, colours, escaping, the page's words, its style and its script.
//! Not here: formulas, files, folders, terminals; no I/O but the system's fonts for PNG, no clock, no environment.
//!
//! Every chart is drawn once, as SVG, by Rust. The page's script fills the cells of a heat map again when another
//! layer or measure is chosen, reads out what the pointer or the arrow keys are at, and shows experts' cards; it
//! draws nothing else. Foreign strings enter through [`maud`]'s escaping or the JSON island, and nowhere else.

#![cfg_attr(
    test,
    expect(clippy::float_cmp, reason = "closed forms that come out exact are asserted exactly")
)]

mod colour;
mod figure;
mod figures;
mod heat;
mod input;
mod island;
mod notation;
mod page;
#[cfg(feature = "png")]
mod png;
mod scale;
mod section;
mod text;

pub use figures::{FigureFile, figures};
pub use input::{Coactivation, Context, DatasetFacts, ExpertCard, Fact, ReportInput, ReportedRun};
pub use page::page;
#[cfg(feature = "png")]
pub use png::{PngError, PngRenderer};
pub use text::is_unseen;
