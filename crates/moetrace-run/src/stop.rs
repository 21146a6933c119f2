//! Breaking a pass off: a layer of a large pass takes seconds, the pass minutes.

use std::sync::atomic::{AtomicBool, Ordering};

use moetrace_model::ModelError;
use moetrace_routing::{Planes, RoutingSink, RoutingView, SinkError, TokenBatch};

use crate::RunError;

/// A listener that ends the pass at its next call once a stop was asked for.
pub(crate) struct Stopping<'a> {
    pub(crate) inner: &'a mut dyn RoutingSink,
    pub(crate) stop: &'a AtomicBool,
}

/// Told to a producer so that it makes no further call; no failure of anything.
#[derive(Debug, thiserror::Error)]
#[error("a stop was asked for")]
struct Stopped;

/// Whether this ended a pass because a stop was asked for.
pub(crate) fn is_stop(error: &RunError) -> bool {
    matches!(error, RunError::Model(ModelError::Sink(sink)) if sink.inner().is::<Stopped>())
}

impl Stopping<'_> {
    fn go_on(&self) -> Result<(), SinkError> {
        if self.stop.load(Ordering::Relaxed) { Err(SinkError::new(Stopped)) } else { Ok(()) }
    }
}

impl RoutingSink for Stopping<'_> {
    fn wants(&self) -> Planes {
        self.inner.wants()
    }

    fn begin(&mut self, batch: &TokenBatch) -> Result<(), SinkError> {
        self.go_on()?;
        self.inner.begin(batch)
    }

    fn record(&mut self, view: &RoutingView<'_>) -> Result<(), SinkError> {
        self.go_on()?;
        self.inner.record(view)
    }

    fn end(&mut self) -> Result<(), SinkError> {
        self.go_on()?;
        self.inner.end()
    }
}
