//! One layer's columns of some rows, copied out of record batches.

use arrow::datatypes::{Float32Type, UInt8Type, UInt16Type};
use moetrace_routing::{ExpertId, LayerIndex, RoutingGeometry, RoutingPlanes};

use crate::column::Part;
use crate::schema::{LayerColumns, experts_fit_a_byte};
use crate::{TraceColumns, TraceError};

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

    /// Adds the rows of `part`: experts, and what else is in `columns`.
    pub(crate) fn add(
        &mut self,
        part: &Part<'_>,
        layer: LayerIndex,
        geometry: &RoutingGeometry,
        columns: TraceColumns,
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
        if columns.weights {
            self.weights.extend_from_slice(part.lists::<Float32Type>(&name.weights, k)?);
        }
        if columns.logits {
            self.logits.extend_from_slice(part.lists::<Float32Type>(&name.logits, geometry.experts())?);
        }
        self.add_numbers(part, layer, columns)
    }

    /// Adds those columns of `part` that have one number a row.
    pub(crate) fn add_numbers(
        &mut self,
        part: &Part<'_>,
        layer: LayerIndex,
        columns: TraceColumns,
    ) -> Result<(), TraceError> {
        let name = LayerColumns::of(layer);
        if columns.margins {
            self.margins.extend_from_slice(part.numbers::<Float32Type>(&name.margin)?);
        }
        if columns.gate_entropy {
            self.gate_entropy.extend_from_slice(part.numbers::<Float32Type>(&name.gate_entropy)?);
        }
        if columns.shared_gate {
            self.shared_gate.extend_from_slice(part.numbers::<Float32Type>(&name.shared_gate)?);
        }
        Ok(())
    }

    /// What a view of these rows is made of.
    pub(crate) fn planes<'a>(&'a self, columns: TraceColumns, nll: Option<&'a [f32]>) -> RoutingPlanes<'a> {
        RoutingPlanes {
            experts: &self.experts,
            weights: columns.weights.then_some(&self.weights),
            margins: columns.margins.then_some(&self.margins),
            gate_entropy: columns.gate_entropy.then_some(&self.gate_entropy),
            logits: columns.logits.then_some(&self.logits),
            shared_gate: columns.shared_gate.then_some(&self.shared_gate),
            hidden: None,
            nll,
        }
    }
}
