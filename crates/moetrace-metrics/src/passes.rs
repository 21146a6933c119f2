//! What listeners to sequences share: the rows of a pass that count, totals of tokens.

use std::ops::Range;

use moetrace_routing::{Name, RoutingGeometry, RoutingView, SampleId, TokenBatch};

use crate::{
    MetricsError, MetricsSettings,
    pass_order::{PassOrder, check_geometry, counted_rows},
};

/// One sample of the open pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CountedSpan {
    pub(crate) dataset: Name,
    pub(crate) sample: SampleId,
    /// The rows of the pass that count: the sample's own, without a BOS row unless those are asked for.
    pub(crate) rows: Range<usize>,
    /// Where in its sample the first counted row stands: 1 behind a BOS row that is left out, else 0.
    pub(crate) first_position: usize,
}

/// Holds the spans of the open pass, and counts tokens once it has ended.
#[derive(Debug, Clone)]
pub(crate) struct Passes {
    geometry: RoutingGeometry,
    settings: MetricsSettings,
    order: PassOrder,
    tokens: u64,
    samples: u64,
    bos_excluded: u64,
    spans: Vec<CountedSpan>,
}

impl Passes {
    pub(crate) fn new(geometry: &RoutingGeometry, settings: &MetricsSettings) -> Self {
        let (geometry, settings, order) = (geometry.clone(), *settings, PassOrder::new(geometry));
        Self { geometry, settings, order, tokens: 0, samples: 0, bos_excluded: 0, spans: Vec::new() }
    }

    pub(crate) fn geometry(&self) -> &RoutingGeometry {
        &self.geometry
    }

    pub(crate) fn settings(&self) -> &MetricsSettings {
        &self.settings
    }

    /// T, the tokens of the passes that have ended.
    pub(crate) fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Samples of the passes that have ended.
    pub(crate) fn samples(&self) -> u64 {
        self.samples
    }

    /// BOS rows left out of the passes that have ended.
    pub(crate) fn bos_excluded(&self) -> u64 {
        self.bos_excluded
    }

    /// The samples of the open pass, those without a row that counts included.
    pub(crate) fn spans(&self) -> &[CountedSpan] {
        &self.spans
    }

    pub(crate) fn begin(&mut self, batch: &TokenBatch) -> Result<(), MetricsError> {
        self.order.begin(batch.len())?;
        let include_bos = self.settings.include_bos;
        let spans = batch.spans().iter().map(|span| {
            let (rows, left_out) = counted_rows(span, include_bos);
            let (dataset, sample) = (span.dataset.clone(), span.sample);
            CountedSpan { dataset, sample, rows, first_position: left_out as usize }
        });
        self.spans.clear();
        self.spans.extend(spans);
        Ok(())
    }

    /// The ordinal of `view`, if it is the next layer of the open pass and every id in it is below E.
    pub(crate) fn layer(&mut self, view: &RoutingView<'_>) -> Result<usize, MetricsError> {
        self.order.layer(view)
    }

    pub(crate) fn end(&mut self) -> Result<(), MetricsError> {
        self.order.end()?;
        self.tokens += self.spans.iter().map(|span| span.rows.len() as u64).sum::<u64>();
        self.samples += self.spans.len() as u64;
        self.bos_excluded += self.spans.iter().map(|span| span.first_position as u64).sum::<u64>();
        self.spans.clear();
        Ok(())
    }

    /// Adds another part's totals if the two may be merged; on an error nothing has been added.
    pub(crate) fn merge(&mut self, other: &Self) -> Result<(), MetricsError> {
        check_geometry(&other.geometry, &self.geometry)?;
        if self.settings != other.settings {
            return Err(MetricsError::SettingsMismatch { found: other.settings, expected: self.settings });
        }
        self.order.check_merge(&other.order)?;
        self.tokens += other.tokens;
        self.samples += other.samples;
        self.bos_excluded += other.bos_excluded;
        Ok(())
    }
}
