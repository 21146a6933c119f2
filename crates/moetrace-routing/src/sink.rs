//! Who listens to routing, and the contract between producer and listener.

use crate::{RoutingView, SinkError, TokenBatch};

/// The optional planes that a listener needs; a producer computes no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Planes {
    /// Router logits of every token.
    pub logits: bool,
    /// Gate of the shared expert, where the model has one.
    pub shared_gate: bool,
    /// Router input at [`TokenBatch::hidden_rows`].
    pub hidden: bool,
    /// Loss of every token; costs the last layer's experts and the language-model head.
    pub nll: bool,
}

impl Planes {
    /// What either of two listeners needs.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            logits: self.logits || other.logits,
            shared_gate: self.shared_gate || other.shared_gate,
            hidden: self.hidden || other.hidden,
            nll: self.nll || other.nll,
        }
    }
}

/// A listener. A producer calls, for every pass: [`begin`](Self::begin) once, [`record`](Self::record) once
/// for each MoE layer in ascending order, [`end`](Self::end) once. After an error it makes no further call,
/// and the listener is dropped: a pass that fails half-way leaves nothing behind.
///
/// Everything lent is borrowed for the call; who keeps something copies it. What a listener yields in the
/// end is its own `finish`, not part of this trait.
pub trait RoutingSink {
    /// Which optional planes this listener needs; constant over its life.
    fn wants(&self) -> Planes {
        Planes::default()
    }

    /// A pass begins.
    ///
    /// # Errors
    /// Whatever the listener cannot do; the producer stops.
    fn begin(&mut self, batch: &TokenBatch) -> Result<(), SinkError>;

    /// One MoE layer of the pass.
    ///
    /// # Errors
    /// Whatever the listener cannot do; the producer stops.
    fn record(&mut self, view: &RoutingView<'_>) -> Result<(), SinkError>;

    /// The pass is complete.
    ///
    /// # Errors
    /// Whatever the listener cannot do; the producer stops.
    fn end(&mut self) -> Result<(), SinkError>;
}

impl<S: RoutingSink + ?Sized> RoutingSink for &mut S {
    fn wants(&self) -> Planes {
        (**self).wants()
    }
    fn begin(&mut self, batch: &TokenBatch) -> Result<(), SinkError> {
        (**self).begin(batch)
    }
    fn record(&mut self, view: &RoutingView<'_>) -> Result<(), SinkError> {
        (**self).record(view)
    }
    fn end(&mut self) -> Result<(), SinkError> {
        (**self).end()
    }
}

/// Two listeners at once; the first hears everything first.
#[derive(Debug)]
pub struct Tee<A, B>(pub A, pub B);

impl<A: RoutingSink, B: RoutingSink> RoutingSink for Tee<A, B> {
    fn wants(&self) -> Planes {
        self.0.wants().or(self.1.wants())
    }
    fn begin(&mut self, batch: &TokenBatch) -> Result<(), SinkError> {
        self.0.begin(batch)?;
        self.1.begin(batch)
    }
    fn record(&mut self, view: &RoutingView<'_>) -> Result<(), SinkError> {
        self.0.record(view)?;
        self.1.record(view)
    }
    fn end(&mut self) -> Result<(), SinkError> {
        self.0.end()?;
        self.1.end()
    }
}
