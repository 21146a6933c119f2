//! The calls of a listener, held to their order: begin, every layer once and ascending, end.

use std::ops::Range;

use moetrace_routing::{RoutingGeometry, RoutingView, Span};

use crate::MetricsError;

/// Which call a listener may get next, and what a view of its pass looks like.
#[derive(Debug, Clone)]
pub(crate) struct PassOrder {
    /// E.
    experts: usize,
    /// K.
    chosen: usize,
    /// L.
    layers: usize,
    open: Option<Open>,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    rows: usize,
    recorded: usize,
}

impl PassOrder {
    pub(crate) fn new(geometry: &RoutingGeometry) -> Self {
        let (experts, chosen) = (geometry.experts(), geometry.chosen());
        Self { experts, chosen, layers: geometry.layers().len(), open: None }
    }

    /// A pass of `rows` tokens begins.
    pub(crate) fn begin(&mut self, rows: usize) -> Result<(), MetricsError> {
        if let Some(open) = self.open {
            return Err(MetricsError::PassStillOpen { found: open.recorded, expected: self.layers });
        }
        self.open = Some(Open { rows, recorded: 0 });
        Ok(())
    }

    /// A layer arrives; gives its ordinal. Every expert of the view is below E then.
    pub(crate) fn layer(&mut self, view: &RoutingView<'_>) -> Result<usize, MetricsError> {
        self.check(view)?;
        self.open.iter_mut().for_each(|open| open.recorded += 1);
        Ok(view.ordinal().index())
    }

    /// A layer arrives as two routers decided it; gives its ordinal. Both views are as [`layer`](Self::layer) has it.
    pub(crate) fn pair(
        &mut self,
        reference: &RoutingView<'_>,
        other: &RoutingView<'_>,
    ) -> Result<usize, MetricsError> {
        self.check(reference)?;
        let (layer, found, expected) = (reference.layer(), other.ordinal(), reference.ordinal());
        if found != expected {
            return Err(MetricsError::LayerPair { layer, found, expected });
        }
        self.check(other)?;
        self.layer(reference)
    }

    fn check(&self, view: &RoutingView<'_>) -> Result<(), MetricsError> {
        let (found, layer) = (view.ordinal(), view.layer());
        let Some(open) = &self.open else { return Err(MetricsError::OutsidePass { found }) };
        if found.index() != open.recorded || open.recorded >= self.layers {
            return Err(MetricsError::LayerOrder { found, expected: open.recorded });
        }
        if view.rows() != open.rows || view.chosen() != self.chosen {
            let (found, chosen, expected, k) = (view.rows(), view.chosen(), open.rows, self.chosen);
            return Err(MetricsError::ViewShape { layer, found, chosen, expected, k });
        }
        // The view was checked against its own geometry, which may have more experts than this one.
        let highest = view.experts().iter().fold(0, |highest, id| id.0.max(highest));
        if usize::from(highest) >= self.experts {
            let row = view.experts().iter().position(|id| id.0 == highest).unwrap_or(0) / self.chosen;
            return Err(MetricsError::ExpertRange { layer, row, found: highest, experts: self.experts });
        }
        Ok(())
    }

    /// The pass is complete.
    pub(crate) fn end(&mut self) -> Result<(), MetricsError> {
        let Some(open) = self.open.take() else { return Err(MetricsError::EndWithoutBegin) };
        if open.recorded == self.layers {
            Ok(())
        } else {
            Err(MetricsError::LayersMissing { found: open.recorded, expected: self.layers })
        }
    }

    /// Whether two parts can be merged: neither is inside a pass.
    pub(crate) fn check_merge(&self, other: &Self) -> Result<(), MetricsError> {
        match self.open.or(other.open) {
            None => Ok(()),
            Some(open) => Err(MetricsError::MergeInsidePass { found: open.recorded, expected: self.layers }),
        }
    }
}

/// The rows of a sample that count, and how many were left out: 1 if it begins with a BOS that does not count.
pub(crate) fn counted_rows(span: &Span, include_bos: bool) -> (Range<usize>, u64) {
    let left_out = usize::from(span.begins_with_bos && !include_bos);
    (span.start + left_out..span.start + span.len, left_out as u64)
}

/// Whether totals of two geometries can be merged. The width of the router's input and a shared gate change no number.
pub(crate) fn check_geometry(
    found: &RoutingGeometry,
    expected: &RoutingGeometry,
) -> Result<(), MetricsError> {
    let shape = |g: &RoutingGeometry| (g.experts(), g.chosen(), g.layers().to_vec());
    if shape(found) == shape(expected) { Ok(()) } else { Err(MetricsError::geometry(found, expected)) }
}
