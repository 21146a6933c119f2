//! One layer's columns of some rows, copied out of record batches.

use arrow::datatypes::{Float32Type, UInt8Type, UInt16Type};
use moetrace_routing::{ExpertId, LayerIndex, Planes, RoutingGeometry, RoutingPlanes};

use crate::TraceError;
use crate::column::Part;
use crate::schema::{LayerColumns, experts_fit_a_byte};

/// Buffers of one layer; filled part by part, cleared and filled again.
#[derive(Debug, Default)]
pub(crate) struct LayerBuffers {
    pub(crate) experts: Vec<ExpertId>,
    pub(crate) weights: Vec<f32>,
    pub(crate) margins: Vec<f32>,
    pub(crate) gate_entropy: Vec<f32>,
    logits: Vec<f32>,
    shared_gate: Vec<f32>,
}

impl LayerBuffers {
    pub(crate) fn clear(&mut self) {
        self.experts.clear();
        for floats in [
            &mut self.weights,
            &mut self.margins,
            &mut self.gate_entropy,
            &mut self.logits,
            &mut self.shared_gate,
        ] {
            floats.clear();
        }
    }

    /// Adds the rows of `part`; of the optional planes those in `planes`.
    pub(crate) fn add(
        &mut self,
        part: &Part<'_>,
        layer: LayerIndex,
        geometry: &RoutingGeometry,
        planes: Planes,
    ) -> Result<(), TraceError> {
        let name = LayerColumns::of(layer);
        let k = geometry.chosen();
        if experts_fit_a_byte(geometry) {
            let ids = part.lists::<UInt8Type>(&name.experts, k)?;
            self.experts.extend(ids.iter().map(|&id| ExpertId(u16::from(id))));
        } else {
            let ids = part.lists::<UInt16Type>(&name.experts, k)?;
            self.experts.extend(ids.iter().map(|&id| ExpertId(id)));
        }
        self.weights.extend_from_slice(part.lists::<Float32Type>(&name.weights, k)?);
        self.margins.extend_from_slice(part.numbers::<Float32Type>(&name.margin)?);
        self.gate_entropy.extend_from_slice(part.numbers::<Float32Type>(&name.gate_entropy)?);
        if planes.logits {
            self.logits.extend_from_slice(part.lists::<Float32Type>(&name.logits, geometry.experts())?);
        }
        if planes.shared_gate {
            self.shared_gate.extend_from_slice(part.numbers::<Float32Type>(&name.shared_gate)?);
        }
        Ok(())
    }

    /// What a view of these rows is made of.
    pub(crate) fn planes<'a>(&'a self, planes: Planes, nll: Option<&'a [f32]>) -> RoutingPlanes<'a> {
        RoutingPlanes {
            experts: &self.experts,
            weights: &self.weights,
            margins: &self.margins,
            gate_entropy: &self.gate_entropy,
            logits: planes.logits.then_some(&self.logits),
            shared_gate: planes.shared_gate.then_some(&self.shared_gate),
            hidden: None,
            nll,
        }
    }
}
