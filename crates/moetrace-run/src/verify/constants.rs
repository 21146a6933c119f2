//! Buffers that nobody filled: values that are valid row by row, and the same in all of them.

use std::borrow::Borrow;
use std::path::Path;

use moetrace_routing::{ExpertId, LayerIndex, RoutingGeometry, RoutingPlanes};

use super::fault::Faults;
use super::{FaultKind, Place};

/// Rows from which on it is no accident that all are alike. Two tokens of a text may well choose alike.
pub(super) const MIN_ROWS: u64 = 64;

/// What all rows of a part of a run have had in common so far. BOS rows do not count: they are alike.
#[derive(Debug)]
pub(super) struct Constants {
    layers: Vec<LayerConstants>,
    token: Constant<u32>,
    /// Kinds that a part of these rows was reported for: said once is enough.
    reported: Vec<FaultKind>,
}

/// One value, as long as every row has it.
#[derive(Debug, Clone)]
pub(super) struct Constant<T> {
    rows: u64,
    value: Option<T>,
    alike: bool,
}

impl<T: PartialEq> Constant<T> {
    pub(super) fn new() -> Self {
        Self { rows: 0, value: None, alike: true }
    }

    pub(super) fn see<S>(&mut self, value: &S)
    where
        S: ToOwned<Owned = T> + PartialEq + ?Sized,
        T: Borrow<S>,
    {
        self.rows += 1;
        match &self.value {
            _ if !self.alike => {}
            Some(first) => self.alike = first.borrow() == value,
            None => self.value = Some(value.to_owned()),
        }
    }

    /// Adds what another part has seen.
    fn absorb(&mut self, other: &Self)
    where
        T: Clone,
    {
        self.rows += other.rows;
        self.alike &= other.alike;
        match (&self.value, &other.value) {
            (Some(ours), Some(theirs)) => self.alike &= ours == theirs,
            (None, Some(theirs)) => self.value = Some(theirs.clone()),
            _ => {}
        }
    }

    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// The value that all rows have, if they are at least so many.
    pub(super) fn found(&self, least: u64) -> Option<&T> {
        self.value.as_ref().filter(|_| self.alike && self.rows >= least)
    }
}

#[derive(Debug)]
struct LayerConstants {
    layer: LayerIndex,
    experts: Constant<Vec<ExpertId>>,
    weights: Constant<Vec<f32>>,
    margins: Constant<f32>,
    gate_entropy: Constant<f32>,
    /// Whether the choices were those of the layer before.
    repeats: Constant<bool>,
}

impl Constants {
    pub(super) fn new(geometry: &RoutingGeometry) -> Self {
        let layer = |&layer: &LayerIndex| LayerConstants {
            layer,
            experts: Constant::new(),
            weights: Constant::new(),
            margins: Constant::new(),
            gate_entropy: Constant::new(),
            repeats: Constant::new(),
        };
        Self {
            layers: geometry.layers().iter().map(layer).collect(),
            token: Constant::new(),
            reported: Vec::new(),
        }
    }

    pub(super) fn see_token(&mut self, id: u32) {
        self.token.see(&id);
    }

    /// Sees the rows of a layer that `counts` says count; `before` are the choices of the layer before it.
    pub(super) fn see_layer(
        &mut self,
        ordinal: usize,
        planes: &RoutingPlanes<'_>,
        counts: &[bool],
        before: Option<&[ExpertId]>,
        chosen: usize,
    ) {
        let Some(layer) = self.layers.get_mut(ordinal) else { return };
        for row in (0..counts.len()).filter(|&row| counts[row]) {
            let slots = row * chosen..(row + 1) * chosen;
            let experts = &planes.experts[slots.clone()];
            layer.experts.see(experts);
            if let Some(before) = before {
                layer.repeats.see(&(before[slots.clone()] == *experts));
            }
            if let Some(weights) = planes.weights {
                layer.weights.see(&weights[slots]);
            }
            if let Some(margins) = planes.margins {
                layer.margins.see(&margins[row]);
            }
            if let Some(entropies) = planes.gate_entropy {
                layer.gate_entropy.see(&entropies[row]);
            }
        }
    }

    /// Reports what all rows of `file` have in common, and gives back the kinds.
    pub(super) fn report(
        &self,
        file: &Path,
        geometry: &RoutingGeometry,
        faults: &mut Faults,
    ) -> Vec<FaultKind> {
        let mut kinds = Vec::new();
        let mut add = |kind, layer: Option<LayerIndex>, what: String| {
            if !self.reported.contains(&kind) {
                faults.add(kind, || (Place { layer: layer.map(|l| l.0), ..Place::file(file) }, what));
                kinds.push(kind);
            }
        };
        if let Some(id) = self.token.found(MIN_ROWS) {
            let what = format!("the token id is {id} in each of {} rows", self.token.rows);
            add(FaultKind::ConstantTokens, None, what);
        }
        // Where all experts are chosen, one weight is all there is, or one expert, much is the same by nature.
        let (experts, chosen) = (geometry.experts(), geometry.chosen());
        for layer in self.layers.iter().filter(|_| chosen < experts) {
            let at = Some(layer.layer);
            if let Some(ids) = layer.experts.found(MIN_ROWS) {
                let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
                let what = format!("experts {} in each of {} rows", ids.join(" "), layer.experts.rows);
                add(FaultKind::ConstantExperts, at, what);
            }
            if let Some(weights) = layer.weights.found(MIN_ROWS).filter(|_| chosen > 1) {
                let what = format!("weights {weights:?} in each of {} rows", layer.weights.rows);
                add(FaultKind::ConstantWeights, at, what);
            }
            if layer.margins.found(MIN_ROWS).is_some_and(|&margin| margin == 0.0) {
                let what = format!("the margin is 0 in each of {} rows", layer.margins.rows);
                add(FaultKind::ZeroMargins, at, what);
            }
            if layer.gate_entropy.found(MIN_ROWS).is_some_and(|&bits| bits == 0.0) {
                let what = format!("the gate entropy is 0 in each of {} rows", layer.gate_entropy.rows);
                add(FaultKind::ZeroEntropy, at, what);
            }
            if layer.repeats.found(MIN_ROWS) == Some(&true) {
                let what =
                    format!("the choices of the layer before it in each of {} rows", layer.repeats.rows);
                add(FaultKind::RepeatedLayer, at, what);
            }
        }
        kinds
    }

    /// Adds what was seen in one file.
    pub(super) fn absorb(&mut self, file: &Self) {
        self.token.absorb(&file.token);
        for (ours, theirs) in self.layers.iter_mut().zip(&file.layers) {
            ours.experts.absorb(&theirs.experts);
            ours.weights.absorb(&theirs.weights);
            ours.margins.absorb(&theirs.margins);
            ours.gate_entropy.absorb(&theirs.gate_entropy);
            ours.repeats.absorb(&theirs.repeats);
        }
    }

    /// Notes kinds that need not be reported again.
    pub(super) fn is_reported(&mut self, kinds: Vec<FaultKind>) {
        self.reported.extend(kinds);
    }
}
