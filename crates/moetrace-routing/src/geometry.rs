//! The shape of a model's routing: everything a listener must know before the first pass.

use crate::{LayerIndex, MoeOrdinal, RoutingError};

/// How many experts, how many are chosen, and in which layers. The same in every layer, as in all
/// supported families.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutingGeometry {
    experts: usize,
    chosen: usize,
    hidden: usize,
    layers: Vec<LayerIndex>,
    shared_gate: bool,
}

impl RoutingGeometry {
    /// `experts` is E, `chosen` K, `hidden` D (width of the router's input); `layers` are the absolute
    /// numbers of the layers that have a router, ascending.
    ///
    /// # Errors
    /// [`RoutingError::Geometry`] unless `1 <= K <= E <= 65536`, `D >= 1` and `layers` is a non-empty
    /// ascending list.
    pub fn new(
        experts: usize,
        chosen: usize,
        hidden: usize,
        layers: Vec<LayerIndex>,
    ) -> Result<Self, RoutingError> {
        let bad = |what: &'static str, found: usize, expected: &'static str| {
            Err(RoutingError::Geometry { what, found, expected })
        };
        if experts == 0 || experts > usize::from(u16::MAX) + 1 {
            return bad("experts", experts, "1 to 65536");
        }
        if chosen == 0 || chosen > experts {
            return bad("chosen experts", chosen, "1 to the number of experts");
        }
        if hidden == 0 {
            return bad("hidden size", hidden, "at least 1");
        }
        if layers.is_empty() || !layers.is_sorted_by(|a, b| a < b) {
            return bad("layers", layers.len(), "one or more, ascending");
        }
        Ok(Self { experts, chosen, hidden, layers, shared_gate: false })
    }

    /// The same geometry of a model whose shared expert has a gate of its own (Qwen1.5-MoE).
    #[must_use]
    pub fn with_shared_gate(mut self) -> Self {
        self.shared_gate = true;
        self
    }

    /// E, the number of routed experts in each layer.
    pub fn experts(&self) -> usize {
        self.experts
    }

    /// K, the number of experts chosen for each token.
    pub fn chosen(&self) -> usize {
        self.chosen
    }

    /// D, the width of the router's input.
    pub fn hidden(&self) -> usize {
        self.hidden
    }

    /// The absolute numbers of the layers that have a router, ascending.
    pub fn layers(&self) -> &[LayerIndex] {
        &self.layers
    }

    /// Whether the model has a gate on its shared expert.
    pub fn has_shared_gate(&self) -> bool {
        self.shared_gate
    }

    /// The absolute number of a layer known by its ordinal, if there is one.
    pub fn layer(&self, ordinal: MoeOrdinal) -> Option<LayerIndex> {
        self.layers.get(ordinal.index()).copied()
    }

    /// Every ordinal, ascending.
    pub fn ordinals(&self) -> impl Iterator<Item = MoeOrdinal> + use<> {
        (0..self.layers.len() as u16).map(MoeOrdinal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_geometries_are_refused_and_named() {
        let layers = || vec![LayerIndex(1), LayerIndex(2)];
        for (e, k, d, l, what) in [
            (0, 1, 4, layers(), "experts"),
            (70_000, 1, 4, layers(), "experts"),
            (4, 0, 4, layers(), "chosen experts"),
            (4, 5, 4, layers(), "chosen experts"),
            (4, 2, 0, layers(), "hidden size"),
            (4, 2, 4, vec![], "layers"),
            (4, 2, 4, vec![LayerIndex(2), LayerIndex(1)], "layers"),
        ] {
            let error = RoutingGeometry::new(e, k, d, l).unwrap_err();
            assert!(matches!(error, RoutingError::Geometry { what: w, .. } if w == what), "{error}");
        }
        let good = RoutingGeometry::new(4, 2, 4, layers()).unwrap();
        assert_eq!(good.layer(MoeOrdinal(1)), Some(LayerIndex(2)));
        assert_eq!(good.layer(MoeOrdinal(2)), None);
        assert_eq!(good.ordinals().count(), 2);
    }
}
