//! The page and its figures, as text and in a browser.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod browser;
mod group_views;
mod hostile;
mod in_browser;
mod synthetic;
mod text;

/// Small enough to count by hand.
const SMALL: synthetic::Shape =
    synthetic::Shape { layers: 3, experts: 8, chosen: 2, samples: 12, length: 40, words: 40 };
