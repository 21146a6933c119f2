//! The choices of the seeded samples themselves, for nulls and resampling that need every row.

use moetrace_routing::{ExpertId, RoutingView};

use crate::{
    passes::{CountedSpan, Passes},
    sample_subset::{Kept, Place, SUBSET_TOKENS, SampleSubset},
};

/// What is kept of one sample: its counted rows, `[L, T, K]`. A sample that was counted twice has two of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Parts(Vec<Vec<ExpertId>>);

impl Kept for Parts {
    fn merge(&mut self, other: Self) {
        self.0.extend(other.0);
    }
}

/// The rows of the samples of a [`SampleSubset`]: at 27 layers and 6 chosen experts 21 MB.
#[derive(Debug, Clone)]
pub(crate) struct KeptRows {
    subset: SampleSubset<Parts>,
    /// Where each span of the open pass goes, `None` if it is not kept.
    open: Vec<Option<(Place, usize)>>,
}

impl KeptRows {
    pub(crate) fn new(seed: u64) -> Self {
        Self { subset: SampleSubset::new(seed, SUBSET_TOKENS), open: Vec::new() }
    }

    /// A pass begins.
    pub(crate) fn begin(&mut self, passes: &Passes) {
        let offer = |span: &CountedSpan| {
            let tokens = span.rows.len() as u64;
            (tokens > 0).then(|| self.subset.offer(&span.dataset, span.sample, tokens))
        };
        let offered: Vec<Option<Place>> = passes.spans().iter().map(offer).collect();
        self.subset.trim();
        let (layers, chosen) = (passes.geometry().layers().len(), passes.geometry().chosen());
        self.open.clear();
        for (place, span) in offered.into_iter().zip(passes.spans()) {
            let kept = place.and_then(|place| {
                let parts = &mut self.subset.get_mut(&place)?.0;
                parts.push(Vec::with_capacity(layers * span.rows.len() * chosen));
                Some((place, parts.len() - 1))
            });
            self.open.push(kept);
        }
    }

    /// One layer of the pass.
    pub(crate) fn record(&mut self, spans: &[CountedSpan], view: &RoutingView<'_>) {
        let k = view.chosen();
        for (kept, span) in self.open.iter().zip(spans) {
            let Some((place, part)) = kept else { continue };
            if let Some(rows) = self.subset.get_mut(place).and_then(|parts| parts.0.get_mut(*part)) {
                rows.extend_from_slice(&view.experts()[span.rows.start * k..span.rows.end * k]);
            }
        }
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.subset.merge(other.subset);
    }

    /// The rows of every kept sample, `[L, T, K]` each, in an order that no split or merge changes.
    pub(crate) fn samples(&self) -> Vec<&[ExpertId]> {
        let mut samples = Vec::new();
        for (_, sample) in self.subset.samples() {
            let mut parts: Vec<&[ExpertId]> = sample.kept.0.iter().map(Vec::as_slice).collect();
            parts.sort_unstable();
            samples.extend(parts);
        }
        samples
    }
}
