//! What listeners to sequences share: the order of calls, the rows that count, totals of tokens.

use std::ops::Range;

use moetrace_routing::{Name, RoutingGeometry, RoutingView, SampleId, TokenBatch};

use crate::{MetricsError, MetricsSettings};

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

/// Checks the calls of a pass and holds its spans; counts tokens once a pass has ended.
#[derive(Debug, Clone)]
pub(crate) struct Passes {
    geometry: RoutingGeometry,
    settings: MetricsSettings,
    tokens: u64,
    samples: u64,
    bos_excluded: u64,
    open: Option<OpenPass>,
}

#[derive(Debug, Clone)]
struct OpenPass {
    rows: usize,
    bos_excluded: u64,
    spans: Vec<CountedSpan>,
    recorded: usize,
}

impl Passes {
    pub(crate) fn new(geometry: &RoutingGeometry, settings: &MetricsSettings) -> Self {
        let (geometry, settings) = (geometry.clone(), *settings);
        Self { geometry, settings, tokens: 0, samples: 0, bos_excluded: 0, open: None }
    }

    pub(crate) fn geometry(&self) -> &RoutingGeometry {
        &self.geometry
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
        self.open.as_ref().map_or(&[], |pass| &pass.spans)
    }

    pub(crate) fn begin(&mut self, batch: &TokenBatch) -> Result<(), MetricsError> {
        if let Some(open) = &self.open {
            let expected = self.geometry.layers().len();
            return Err(MetricsError::PassStillOpen { found: open.recorded, expected });
        }
        let left_out = |bos: bool| usize::from(bos && !self.settings.include_bos);
        let spans = batch.spans().iter().map(|span| {
            let first_position = left_out(span.begins_with_bos);
            let rows = span.start + first_position..span.start + span.len;
            CountedSpan { dataset: span.dataset.clone(), sample: span.sample, rows, first_position }
        });
        let spans: Vec<_> = spans.collect();
        let bos_excluded = spans.iter().map(|span| span.first_position as u64).sum();
        self.open = Some(OpenPass { rows: batch.len(), bos_excluded, spans, recorded: 0 });
        Ok(())
    }

    /// The ordinal of `view`, if it is the next layer of the open pass and every id in it is below E.
    pub(crate) fn layer(&mut self, view: &RoutingView<'_>) -> Result<usize, MetricsError> {
        let (e, k, layer) = (self.geometry.experts(), self.geometry.chosen(), view.layer());
        let Some(pass) = &mut self.open else {
            return Err(MetricsError::OutsidePass { found: view.ordinal() });
        };
        let ordinal = view.ordinal().index();
        if ordinal != pass.recorded || ordinal >= self.geometry.layers().len() {
            return Err(MetricsError::LayerOrder { found: view.ordinal(), expected: pass.recorded });
        }
        if view.rows() != pass.rows || view.chosen() != k {
            let (found, chosen, expected) = (view.rows(), view.chosen(), pass.rows);
            return Err(MetricsError::ViewShape { layer, found, chosen, expected, k });
        }
        if let Some(at) = view.experts().iter().position(|id| id.index() >= e) {
            let (row, found) = (at / k, view.experts()[at].0);
            return Err(MetricsError::ExpertRange { layer, row, found, experts: e });
        }
        pass.recorded += 1;
        Ok(ordinal)
    }

    pub(crate) fn end(&mut self) -> Result<(), MetricsError> {
        let Some(pass) = self.open.take() else { return Err(MetricsError::EndWithoutBegin) };
        let expected = self.geometry.layers().len();
        if pass.recorded != expected {
            return Err(MetricsError::LayersMissing { found: pass.recorded, expected });
        }
        self.tokens += pass.spans.iter().map(|span| span.rows.len() as u64).sum::<u64>();
        self.samples += pass.spans.len() as u64;
        self.bos_excluded += pass.bos_excluded;
        Ok(())
    }

    /// Adds another part's totals if the two may be merged; on an error nothing has been added.
    pub(crate) fn merge(&mut self, other: &Self) -> Result<(), MetricsError> {
        // The width of the router's input and a shared gate change no number here.
        let shape = |g: &RoutingGeometry| (g.experts(), g.chosen(), g.layers().to_vec());
        if shape(&self.geometry) != shape(&other.geometry) {
            return Err(MetricsError::geometry(&other.geometry, &self.geometry));
        }
        if self.settings != other.settings {
            return Err(MetricsError::SettingsMismatch { found: other.settings, expected: self.settings });
        }
        if let Some(pass) = self.open.as_ref().or(other.open.as_ref()) {
            let expected = self.geometry.layers().len();
            return Err(MetricsError::MergeInsidePass { found: pass.recorded, expected });
        }
        self.tokens += other.tokens;
        self.samples += other.samples;
        self.bos_excluded += other.bos_excluded;
        Ok(())
    }
}
