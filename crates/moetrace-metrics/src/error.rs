//! What can be wrong with a view, the order of calls, or a merge.

use moetrace_routing::{LayerIndex, MoeOrdinal, RoutingGeometry};

use crate::{MetricsSettings, groups::GroupBy};

/// Totals that cannot be folded. The row is the row of the pass, `0..N`.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the message of each variant says what its fields are")]
pub enum MetricsError {
    #[error(
        "metrics of two geometries cannot be merged: {found_experts} experts, {found_chosen} chosen, {found_layers} \
         layers; expected {expected_experts}, {expected_chosen}, {expected_layers} with the same layer numbers"
    )]
    GeometryMismatch {
        found_experts: usize,
        found_chosen: usize,
        found_layers: usize,
        expected_experts: usize,
        expected_chosen: usize,
        expected_layers: usize,
    },
    #[error("metrics of two settings cannot be merged: {found:?}, expected {expected:?}")]
    SettingsMismatch { found: MetricsSettings, expected: MetricsSettings },
    #[error(
        "metrics of two sets of families cannot be merged: expected the same families and tracked token ids"
    )]
    FamiliesMismatch,
    #[error("fidelity of two settings cannot be merged: BOS rows counted is {found}, expected {expected}")]
    BosMismatch { found: bool, expected: bool },
    #[error("metrics by {found:?} cannot be merged with metrics by {expected:?}")]
    GroupMismatch { found: GroupBy, expected: GroupBy },
    #[error("vocabularies of other token ids cannot be merged: {found} ids, expected the same {expected}")]
    TrackedMismatch { found: usize, expected: usize },
    #[error("{found} experts, expected at most {limit}: a table of their pairs is kept for each layer")]
    ManyExperts { found: usize, limit: usize },
    #[error("a vocabulary of {found} tokens, expected at most {limit}: its counters would overflow")]
    TooManyTokens { found: u64, limit: u64 },
    #[error("metrics in the middle of a pass cannot be merged: {found} layers recorded, expected {expected}")]
    MergeInsidePass { found: usize, expected: usize },
    #[error("a pass begins while another is open: {found} layers recorded, expected {expected}")]
    PassStillOpen { found: usize, expected: usize },
    #[error("routing of layer ordinal {found} arrived outside a pass")]
    OutsidePass { found: MoeOrdinal },
    #[error("a pass ends that never began")]
    EndWithoutBegin,
    #[error("a pass ends after {found} layers, expected {expected}")]
    LayersMissing { found: usize, expected: usize },
    #[error("routing of layer ordinal {found} arrived out of order, expected ordinal {expected}")]
    LayerOrder { found: MoeOrdinal, expected: usize },
    #[error(
        "layer {layer}: a view of {found} rows and {chosen} chosen experts, expected {expected} rows and {k} chosen"
    )]
    ViewShape { layer: LayerIndex, found: usize, chosen: usize, expected: usize, k: usize },
    #[error("layer {layer}: the reference's view is of ordinal {expected}, the other one's of {found}")]
    LayerPair { layer: LayerIndex, found: MoeOrdinal, expected: MoeOrdinal },
    #[error("layer {layer}, row {row}: expert {found} is outside 0..{experts}")]
    ExpertRange { layer: LayerIndex, row: usize, found: u16, experts: usize },
    #[error("layer {layer}: {plane} are not recorded, and what was asked for is measured with them")]
    NotRecorded { layer: LayerIndex, plane: &'static str },
    #[error("layer {layer}, row {row}: {plane} is {found}, expected at most {limit}")]
    TooLarge { layer: LayerIndex, row: usize, plane: &'static str, found: f32, limit: f32 },
}

impl MetricsError {
    pub(crate) fn geometry(found: &RoutingGeometry, expected: &RoutingGeometry) -> Self {
        Self::GeometryMismatch {
            found_experts: found.experts(),
            found_chosen: found.chosen(),
            found_layers: found.layers().len(),
            expected_experts: expected.experts(),
            expected_chosen: expected.chosen(),
            expected_layers: expected.layers().len(),
        }
    }
}
