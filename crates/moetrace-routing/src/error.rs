//! What can be wrong with a batch, a view or a listener.

use crate::{LayerIndex, SampleId};

/// A producer broke the contract of the waist. The row is the row of the pass, `0..N`.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the message of each variant says what its fields are")]
pub enum RoutingError {
    #[error("routing geometry: {what} is {found}, expected {expected}")]
    Geometry { what: &'static str, found: usize, expected: &'static str },
    #[error("token batch: {what} is {found}, expected {expected}")]
    Batch { what: &'static str, found: usize, expected: usize },
    #[error(
        "token batch: the span of sample {sample} covers rows {start}..{end} where row {expected} begins it"
    )]
    Span { sample: SampleId, start: usize, end: usize, expected: usize },
    #[error("routing of layer {layer}: {plane} holds {found} values, expected {expected}")]
    PlaneLength { layer: LayerIndex, plane: &'static str, found: usize, expected: usize },
    #[error("layer ordinal {found} is outside a model of {layers} routed layers")]
    Ordinal { found: usize, layers: usize },
    #[error("layer {layer}, row {row}: expert {found} is outside 0..{experts}")]
    ExpertRange { layer: LayerIndex, row: usize, found: u16, experts: usize },
    #[error("layer {layer}, row {row}: expert {expert} is chosen twice")]
    ExpertTwice { layer: LayerIndex, row: usize, expert: u16 },
    #[error("layer {layer}, row {row}: weight {found} at rank {rank} exceeds the {before} before it")]
    WeightOrder { layer: LayerIndex, row: usize, rank: usize, found: f32, before: f32 },
    #[error("the hidden rows of layer {layer} hold {found} after {before}, expected ascending rows")]
    HiddenOrder { layer: LayerIndex, found: u32, before: u32 },
    #[error("layer {layer}, row {row}: {plane} is {found}, expected a finite number{}", least(plane))]
    NotFinite { layer: LayerIndex, row: usize, plane: &'static str, found: f32 },
}

/// What else is asked of a number: logits, hidden states and losses may be negative.
fn least(plane: &str) -> &'static str {
    if matches!(plane, "logit" | "hidden state" | "token loss") { "" } else { " of at least 0" }
}

/// A listener failed; the producer stops the pass and hands this on.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct SinkError(Box<dyn std::error::Error + Send + Sync>);

impl SinkError {
    /// Wraps what went wrong in the listener.
    pub fn new(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(error.into())
    }

    /// The listener's own error, for whoever knows its type.
    pub fn inner(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
        self.0.as_ref()
    }

    /// Takes the listener's own error out.
    pub fn into_inner(self) -> Box<dyn std::error::Error + Send + Sync> {
        self.0
    }
}

impl From<RoutingError> for SinkError {
    fn from(error: RoutingError) -> Self {
        Self::new(error)
    }
}
