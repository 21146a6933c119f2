//! A view kept beyond the call that lends it.

use crate::{ExpertId, HiddenRows, LayerIndex, MoeOrdinal, RoutingPlanes, RoutingView};

/// What a [`RoutingView`] showed, in buffers of its own that can be filled again.
///
/// It is filled from checked views alone, so that the view it lends needs no second check.
#[derive(Debug)]
pub struct RoutingCopy {
    ordinal: MoeOrdinal,
    layer: LayerIndex,
    rows: usize,
    chosen: usize,
    /// `[N, K]`.
    experts: Vec<ExpertId>,
    /// `[N, K]`.
    weights: Plane,
    /// `[N]`.
    margins: Plane,
    /// `[N]`.
    gate_entropy: Plane,
    /// `[N, E]`.
    logits: Plane,
    /// `[N]`.
    shared_gate: Plane,
    /// Rows of the pass, `[n]`, and their hidden states, `[n, D]`.
    hidden_rows: Vec<u32>,
    hidden: Plane,
    /// `[N]`.
    nll: Plane,
}

/// An optional plane; its buffer stays where a view is without it.
#[derive(Debug, Default)]
struct Plane {
    is_there: bool,
    values: Vec<f32>,
}

impl Plane {
    fn fill(&mut self, from: Option<&[f32]>) {
        self.is_there = from.is_some();
        refill(&mut self.values, from.unwrap_or_default());
    }

    fn get(&self) -> Option<&[f32]> {
        self.is_there.then_some(&self.values)
    }
}

impl RoutingCopy {
    /// A copy in new buffers.
    pub fn new(view: &RoutingView<'_>) -> Self {
        let mut copy = Self {
            ordinal: view.ordinal(),
            layer: view.layer(),
            rows: 0,
            chosen: view.chosen(),
            experts: Vec::new(),
            weights: Plane::default(),
            margins: Plane::default(),
            gate_entropy: Plane::default(),
            logits: Plane::default(),
            shared_gate: Plane::default(),
            hidden_rows: Vec::new(),
            hidden: Plane::default(),
            nll: Plane::default(),
        };
        copy.fill(view);
        copy
    }

    /// Takes over another view; memory is asked for only where it shows more than any before it.
    pub fn fill(&mut self, view: &RoutingView<'_>) {
        (self.ordinal, self.layer) = (view.ordinal(), view.layer());
        (self.rows, self.chosen) = (view.rows(), view.chosen());
        refill(&mut self.experts, view.experts());
        self.weights.fill(view.weights());
        self.margins.fill(view.margins());
        self.gate_entropy.fill(view.gate_entropy());
        self.logits.fill(view.logits());
        self.shared_gate.fill(view.shared_gate());
        refill(&mut self.hidden_rows, view.hidden().map_or(&[][..], |hidden| hidden.rows));
        self.hidden.fill(view.hidden().map(|hidden| hidden.values));
        self.nll.fill(view.nll());
    }

    /// The view as it was.
    pub fn view(&self) -> RoutingView<'_> {
        let planes = RoutingPlanes {
            experts: &self.experts,
            weights: self.weights.get(),
            margins: self.margins.get(),
            gate_entropy: self.gate_entropy.get(),
            logits: self.logits.get(),
            shared_gate: self.shared_gate.get(),
            hidden: self.hidden.get().map(|values| HiddenRows { rows: &self.hidden_rows, values }),
            nll: self.nll.get(),
        };
        RoutingView::checked_before(self.ordinal, self.layer, self.rows, self.chosen, planes)
    }
}

fn refill<T: Copy>(buffer: &mut Vec<T>, values: &[T]) {
    buffer.clear();
    buffer.extend_from_slice(values);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{RoutingError, RoutingGeometry};

    fn geometry() -> RoutingGeometry {
        RoutingGeometry::new(4, 2, 3, vec![LayerIndex(1), LayerIndex(2)]).unwrap().with_shared_gate()
    }

    fn with_view<T>(
        ordinal: u16,
        rows: usize,
        whole: bool,
        look: impl FnOnce(&RoutingView<'_>) -> T,
    ) -> Result<T, RoutingError> {
        let experts: Vec<ExpertId> =
            (0..rows).flat_map(|row| [row % 4, (row + 1) % 4]).map(|id| ExpertId(id as u16)).collect();
        let values: Vec<f32> = (0..rows * 4).map(|i| 1.0 + i as f32).collect();
        let weights: Vec<f32> = (0..rows).flat_map(|row| [0.5 + row as f32, 0.25]).collect();
        let losses: Vec<f32> = (0..rows).map(|row| if row == 0 { f32::NAN } else { row as f32 }).collect();
        let hidden_rows: Vec<u32> = (0..rows as u32).step_by(2).collect();
        let optional = RoutingPlanes {
            logits: Some(&values),
            shared_gate: Some(&values[..rows]),
            hidden: Some(HiddenRows { rows: &hidden_rows, values: &values[..hidden_rows.len() * 3] }),
            nll: Some(&losses),
            ..RoutingPlanes::default()
        };
        let planes = RoutingPlanes {
            experts: &experts,
            weights: Some(&weights),
            margins: Some(&values[..rows]),
            gate_entropy: Some(&values[rows..2 * rows]),
            ..if whole { optional } else { RoutingPlanes::default() }
        };
        Ok(look(&RoutingView::new(&geometry(), MoeOrdinal(ordinal), rows, planes)?))
    }

    #[test]
    fn a_copy_shows_what_the_view_showed_and_its_buffers_serve_again() {
        let mut copy = with_view(1, 5, true, RoutingCopy::new).unwrap();
        let place = copy.view().weights().unwrap().as_ptr();
        // Debug prints every value, and a loss that is no number as such.
        let shown = |view: &RoutingView<'_>| format!("{view:?}");
        for (ordinal, rows, whole) in [(1, 5, true), (0, 3, false), (1, 0, true), (0, 5, true)] {
            with_view(ordinal, rows, whole, |view| copy.fill(view)).unwrap();
            assert_eq!(shown(&copy.view()), with_view(ordinal, rows, whole, shown).unwrap());
            assert_eq!(copy.view().logits().is_some(), whole);
        }
        assert_eq!(copy.view().weights().unwrap().as_ptr(), place);
    }
}
