//! The engine's side of a shard: its passes, and in the user's terms where one went wrong.

use std::ops::Range;
use std::sync::atomic::AtomicBool;

use moetrace_corpus::pack;
use moetrace_model::{Engine, ModelError};
use moetrace_routing::{RoutingError, RoutingSink, TokenBatch};

use crate::stop::{Stopping, is_stop};
use crate::{Plan, RunError, RunEvent, Shard};

/// What passes are run from and what ends them.
#[derive(Clone, Copy)]
pub(crate) struct Passes<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) shard: &'a Shard,
    /// Samples of each pass, counted within the shard.
    pub(crate) ranges: &'a [Range<usize>],
    pub(crate) stop: &'a AtomicBool,
}

impl Passes<'_> {
    /// Runs every pass and tells of each; `false` if it was told to stop.
    pub(crate) fn run(
        self,
        engine: &mut dyn Engine,
        sink: &mut dyn RoutingSink,
        on_pass: &mut dyn FnMut(RunEvent<'_>) -> Result<(), RunError>,
    ) -> Result<bool, RunError> {
        let dataset = &self.plan.corpus.datasets[self.shard.dataset];
        let samples = &dataset.samples[self.shard.range()];
        let mut hidden = HiddenRowChoice::new(self.plan, self.shard);
        for range in self.ranges {
            let part = &samples[range.clone()];
            let batch = hidden.ask(pack(&dataset.name, part)?)?;
            let mut stopping = Stopping { inner: &mut *sink, stop: self.stop };
            match run_pass(engine, &batch, &mut stopping) {
                Err(error) if is_stop(&error) => return Ok(false),
                other => other?,
            }
            let (samples, tokens, usage) = (part.len(), batch.len(), engine.usage());
            on_pass(RunEvent::Pass { dataset: &dataset.name, samples, tokens, usage })?;
        }
        Ok(true)
    }
}

/// Runs one pass, and says in the user's terms where a token or a number was not what it must be.
fn run_pass(engine: &mut dyn Engine, batch: &TokenBatch, sink: &mut dyn RoutingSink) -> Result<(), RunError> {
    engine.run(batch, sink).map_err(|error| {
        if let ModelError::TokenRange { row, found, vocab } = error
            && let Some(span) = batch.span_of(row)
        {
            let (dataset, sample) = (span.dataset.to_string(), span.sample.0);
            return RunError::TokenRange { dataset, sample, position: batch.positions()[row], found, vocab };
        }
        if let ModelError::LossNotFinite { row, found } = error
            && let Some(span) = batch.span_of(row)
        {
            let (dataset, sample) = (span.dataset.to_string(), span.sample.0);
            return RunError::LossNotFinite {
                dataset,
                sample,
                position: batch.positions()[row],
                value: found,
            };
        }
        let (layer, row, plane, value) = match &error {
            ModelError::Routing(RoutingError::NotFinite { layer, row, plane, found }) => {
                (layer, *row, *plane, *found)
            }
            ModelError::NotFinite { layer, row, found } => (layer, *row, "router logit", *found),
            _ => return RunError::Model(error),
        };
        match batch.span_of(row) {
            Some(span) => RunError::NotFinite {
                layer: layer.0,
                plane: plane.into(),
                value,
                dataset: span.dataset.to_string(),
                sample: span.sample.0,
                position: batch.positions()[row],
            },
            None => RunError::Model(error),
        }
    })
}

/// Which rows of a shard keep their router input: the `n` with the smallest seeded hash, so that the choice
/// depends on the shard alone and not on how its passes are cut.
struct HiddenRowChoice {
    rows: Vec<u64>,
    next: u64,
}

impl HiddenRowChoice {
    fn new(plan: &Plan, shard: &Shard) -> Self {
        let wanted = if plan.content.columns.hidden { plan.content.hidden_rows } else { 0 };
        if wanted == 0 {
            return Self { rows: Vec::new(), next: 0 };
        }
        let mut key = *blake3::hash(shard.name.as_bytes()).as_bytes();
        key[..8].copy_from_slice(&plan.content.seed.to_le_bytes());
        let rank = |row: &u64| *blake3::keyed_hash(&key, &row.to_le_bytes()).as_bytes();
        let mut rows: Vec<u64> = (0..shard.tokens).collect();
        rows.sort_by_cached_key(rank);
        rows.truncate(wanted);
        rows.sort_unstable();
        Self { rows, next: 0 }
    }

    /// Asks for the chosen rows that fall into this batch, which continues where the last one ended.
    fn ask(&mut self, batch: TokenBatch) -> Result<TokenBatch, RunError> {
        let end = self.next + batch.len() as u64;
        let from = self.rows.partition_point(|&r| r < self.next);
        let to = self.rows.partition_point(|&r| r < end);
        let rows = self.rows[from..to].iter().map(|&r| (r - self.next) as u32).collect();
        self.next = end;
        batch.with_hidden_rows(rows).map_err(|e| RunError::Model(ModelError::Routing(e)))
    }
}
