//! How many tokens a pass may have: what the settings say, until memory runs out.

use moetrace_model::{Engine, ModelError};

use crate::Plan;

/// The most tokens of a pass from here on. A longer text is a pass of its own.
#[derive(Debug)]
pub(crate) struct PassSize {
    pub(crate) tokens: usize,
    /// What the engine has room for, once it was asked; each answer must be smaller than the one before.
    room: usize,
}

impl PassSize {
    pub(crate) fn new(tokens: usize) -> Self {
        Self { tokens, room: usize::MAX }
    }

    /// Has the engine give memory back after it ran out. An error says that there is no smaller size with which every
    /// text of the plan still fits, and what the engine failed at, if it did.
    pub(crate) fn halve(&mut self, engine: &mut dyn Engine, plan: &Plan) -> Result<(), Option<ModelError>> {
        let room = engine.halve().map_err(Some)?.ok_or(None)?;
        let lengths = plan.corpus.datasets.iter().flat_map(|d| &d.samples).map(|s| s.tokens.len());
        if room >= self.room || room < lengths.max().unwrap_or(0) {
            return Err(None);
        }
        (self.tokens, self.room) = (self.tokens.min(room), room);
        Ok(())
    }
}
