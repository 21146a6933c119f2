//! In: what a router chose (ids, weights) and for which tokens.
//! Out: the same, checked once, lent to whoever listens.
//! Holds: ids, geometry, [`TokenBatch`], [`RoutingView`], [`RoutingCopy`], [`RoutingSink`], [`Tee`], [`RoundWeights`].
//! Not here: models, files, numbers about routing; no I/O, no threads, no clock.
//!
//! This is the narrow waist of moetrace. A producer (a model, or a reader of recorded traces) drives a
//! [`RoutingSink`] pass by pass; live numbers and replayed numbers go through the same four calls, so they
//! cannot differ.

mod batch;
mod copy;
mod error;
mod geometry;
mod ids;
mod round;
mod sink;
mod view;

pub use batch::{Name, Span, TokenBatch};
pub use copy::RoutingCopy;
pub use error::{RoutingError, SinkError};
pub use geometry::RoutingGeometry;
pub use ids::{ExpertId, LayerIndex, MoeOrdinal, SampleId, TokenId};
pub use round::{RoundWeights, WeightPrecision, round_to_half_precision};
pub use sink::{Planes, RoutingSink, Tee};
pub use view::{HiddenRows, RoutingPlanes, RoutingView};
