//! Contexts: where in the texts each expert has its highest weights.

mod best;
mod report;

use std::collections::BTreeSet;

use moetrace_routing::{
    ExpertId, Name, RoutingGeometry, RoutingSink, RoutingView, SinkError, TokenBatch, TokenId,
};

use self::best::{Best, Entry, Rank, bits};
use crate::{
    MetricsError, MetricsSettings,
    passes::{CountedSpan, Passes},
    random::{self, SplitMix64},
};

pub use self::report::{Context, ContextLayer, ContextsReport};

/// Contexts of each expert.
pub const CONTEXTS: usize = 4;

/// Tokens before the one that a context is of, where the text has them.
pub const TOKENS_BEFORE: usize = 12;

/// Tokens after the one that a context is of, where the text has them.
pub const TOKENS_AFTER: usize = 4;

/// Keeps the tokens with the highest weights of every expert in every layer; a [`RoutingSink`].
///
/// It needs the ids of a run's tokens, and its weights: routing without weights is refused. Of each text at most one token is kept for an expert, that with
/// the highest weight; equal weights are decided by a seeded hash of data set, sample and position. Totals of two parts
/// [`merge`](Self::merge) into those of both; any split of the same samples, merged in any order, gives the same
/// [`report`](Self::report) to the last bit. After an error the totals hold part of a pass and must be dropped.
#[derive(Debug, Clone)]
pub struct ContextMetrics {
    passes: Passes,
    /// `[L][E]`.
    layers: Vec<Vec<Best>>,
    /// Bits of the weight below which nothing is taken in, `[L][E]`.
    floors: Vec<Vec<u32>>,
    /// Tokens of the open pass, `[N]`.
    tokens: Vec<TokenId>,
    candidates: Candidates,
}

/// The best rows of the sample at hand.
#[derive(Debug, Clone)]
struct Candidates {
    /// Rank and row of the pass, `[E]`.
    best: Vec<Option<(Rank, usize)>>,
    /// Experts that have one.
    touched: Vec<u16>,
}

impl ContextMetrics {
    /// Nothing kept yet.
    pub fn new(geometry: &RoutingGeometry, settings: &MetricsSettings) -> Self {
        let (experts, layers) = (geometry.experts(), geometry.layers().len());
        Self {
            passes: Passes::new(geometry, settings),
            layers: vec![vec![Best::new(CONTEXTS); experts]; layers],
            floors: vec![vec![0; experts]; layers],
            tokens: Vec::new(),
            candidates: Candidates { best: vec![None; experts], touched: Vec::new() },
        }
    }

    /// Adds what another part of the run kept. On an error nothing has been added.
    ///
    /// # Errors
    /// [`MetricsError::GeometryMismatch`], [`MetricsError::SettingsMismatch`], or
    /// [`MetricsError::MergeInsidePass`] if either side has a pass open.
    pub fn merge(&mut self, other: Self) -> Result<(), MetricsError> {
        self.passes.merge(&other.passes)?;
        let ours = self.layers.iter_mut().flatten().zip(self.floors.iter_mut().flatten());
        for ((ours, floor), theirs) in ours.zip(other.layers.into_iter().flatten()) {
            ours.merge(theirs);
            *floor = ours.floor();
        }
        Ok(())
    }

    /// Every context, from the passes that have ended.
    pub fn report(&self) -> ContextsReport {
        let entries = || self.layers.iter().flatten().flat_map(Best::entries);
        let names: Vec<&Name> =
            entries().map(|entry| &entry.dataset).collect::<BTreeSet<_>>().into_iter().collect();
        let of_expert =
            |best: &Best| best.entries().iter().map(|entry| report::context(entry, &names)).collect();
        let numbers = self.passes.geometry().layers();
        let of_layer = |(layer, experts): (&moetrace_routing::LayerIndex, &Vec<Best>)| ContextLayer {
            layer: layer.0,
            experts: experts.iter().map(of_expert).collect(),
        };
        ContextsReport {
            layers: numbers.iter().zip(&self.layers).map(of_layer).collect(),
            datasets: names.iter().map(ToString::to_string).collect(),
        }
    }

    fn begin_pass(&mut self, batch: &TokenBatch) -> Result<(), MetricsError> {
        self.passes.begin(batch)?;
        self.tokens.clear();
        self.tokens.extend_from_slice(batch.token_ids());
        Ok(())
    }

    fn record_layer(&mut self, view: &RoutingView<'_>) -> Result<(), MetricsError> {
        let (ordinal, seed) = (self.passes.layer(view)?, self.passes.settings().seed);
        let (layer, plane) = (view.layer(), "weights");
        let weights = view.weights().ok_or(MetricsError::NotRecorded { layer, plane })?;
        let floors = &mut self.floors[ordinal];
        for span in self.passes.spans() {
            let hash = random::hash(seed, &span.dataset, span.sample.0);
            self.candidates.find((view.experts(), weights), view.chosen(), (span, hash), floors);
            for expert in self.candidates.touched.drain(..).map(usize::from) {
                let Some((rank, row)) = self.candidates.best[expert].take() else { continue };
                let best = &mut self.layers[ordinal][expert];
                if best.takes(rank) {
                    best.add(entry(rank, row, span, &self.tokens));
                    floors[expert] = best.floor();
                }
            }
        }
        Ok(())
    }
}

impl Candidates {
    /// Finds the best row of a sample for each expert that may take it in; `hash` is the sample's.
    fn find(
        &mut self,
        (experts, weights): (&[ExpertId], &[f32]),
        k: usize,
        (span, hash): (&CountedSpan, u64),
        floors: &[u32],
    ) {
        let rows = span.rows.start * k..span.rows.end * k;
        let slots = experts[rows.clone()].iter().zip(&weights[rows]);
        for (slot, (id, &weight)) in slots.enumerate() {
            if bits(weight) < floors[id.index()] {
                continue;
            }
            let position = slot / k;
            let hash = SplitMix64::new(hash.wrapping_add(position as u64)).next_u64();
            let (rank, row) = (Rank::new(weight, hash), span.rows.start + position);
            match &mut self.best[id.index()] {
                Some(best) if rank < best.0 => *best = (rank, row),
                Some(_) => {}
                none => {
                    *none = Some((rank, row));
                    self.touched.push(id.0);
                }
            }
        }
    }
}

/// The token of a row of the pass with those around it, BOS included.
fn entry(rank: Rank, row: usize, span: &CountedSpan, tokens: &[TokenId]) -> Entry {
    let start = span.rows.start - span.first_position;
    let from = row.saturating_sub(TOKENS_BEFORE).max(start);
    let to = (row + 1 + TOKENS_AFTER).min(span.rows.end);
    Entry {
        rank,
        dataset: span.dataset.clone(),
        sample: span.sample,
        position: (row - start) as u32,
        tokens: tokens[from..to].to_vec(),
        at: row - from,
    }
}

impl RoutingSink for ContextMetrics {
    fn begin(&mut self, batch: &TokenBatch) -> Result<(), SinkError> {
        self.begin_pass(batch).map_err(SinkError::new)
    }
    fn record(&mut self, view: &RoutingView<'_>) -> Result<(), SinkError> {
        self.record_layer(view).map_err(SinkError::new)
    }
    fn end(&mut self) -> Result<(), SinkError> {
        self.passes.end().map_err(SinkError::new)
    }
}
