//! From the engine's thread to the one that writes: what a producer lends is copied into a queue with an end.
//!
//! The queue holds two passes. With the layer that is copied and the one that is written, a shard has two passes and
//! two layers here at most; a copied layer takes N (6 K + 8) bytes, and what optional planes add. Its buffers go back
//! to the producer and serve again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use moetrace_routing::{Planes, RoutingCopy, RoutingSink, RoutingView, SinkError, TokenBatch};

use crate::write::CarriedOut;

/// Passes in the queue. The writer waits for its encoder now and then, for a chunk of 8,192 rows at a time; a pass
/// has half as many by default, and the engine goes on meanwhile.
const QUEUED_PASSES: usize = 2;

/// One call of a pass.
enum Call {
    Begin(TokenBatch),
    Record(RoutingCopy),
    End,
    /// No pass follows. Without it the producer gave up.
    Complete(CarriedOut),
}

/// The producer's end: a listener that only copies.
pub(crate) struct Handover<'a> {
    wants: Planes,
    calls: SyncSender<Call>,
    used: Receiver<RoutingCopy>,
    alarm: &'a AtomicBool,
}

/// The other end: a producer of the same calls in the same order.
pub(crate) struct Heard {
    calls: Receiver<Call>,
    used: Sender<RoutingCopy>,
}

/// Told to a producer so that it makes no further call; what went wrong is told by whom it happened to.
#[derive(Debug, thiserror::Error)]
#[error("what is written elsewhere has failed")]
struct Failed;

/// Both ends, for a model of `layers` routed layers and a listener that `wants` these planes. The producer is stopped
/// at its next call once `alarm` is set or the other end is gone.
pub(crate) fn handover(wants: Planes, layers: usize, alarm: &AtomicBool) -> (Handover<'_>, Heard) {
    // A pass is its layers between a begin and an end.
    let (calls, heard) = sync_channel(QUEUED_PASSES * (layers + 2));
    let (give_back, used) = channel();
    (Handover { wants, calls, used, alarm }, Heard { calls: heard, used: give_back })
}

impl Handover<'_> {
    /// Every pass was handed over. Dropped without this, it tells the other end to drop them.
    pub(crate) fn complete(self, how: CarriedOut) {
        // If nobody listens any more, the error that ended them is reported.
        let _ = self.call(Call::Complete(how));
    }

    fn call(&self, call: Call) -> Result<(), SinkError> {
        if self.alarm.load(Ordering::Relaxed) {
            return Err(SinkError::new(Failed));
        }
        self.calls.send(call).map_err(|_| SinkError::new(Failed))
    }
}

impl RoutingSink for Handover<'_> {
    fn wants(&self) -> Planes {
        self.wants
    }

    fn begin(&mut self, batch: &TokenBatch) -> Result<(), SinkError> {
        self.call(Call::Begin(batch.clone()))
    }

    fn record(&mut self, view: &RoutingView<'_>) -> Result<(), SinkError> {
        let copy = match self.used.try_recv() {
            Ok(mut copy) => {
                copy.fill(view);
                copy
            }
            Err(_) => RoutingCopy::new(view),
        };
        self.call(Call::Record(copy))
    }

    fn end(&mut self) -> Result<(), SinkError> {
        self.call(Call::End)
    }
}

impl Heard {
    /// Plays every call to `sink` as it comes; `None` if the producer gave up.
    ///
    /// # Errors
    /// The first of the sink, which hears nothing after it; neither does anybody else.
    pub(crate) fn play(self, sink: &mut dyn RoutingSink) -> Result<Option<CarriedOut>, SinkError> {
        while let Ok(call) = self.calls.recv() {
            match call {
                Call::Begin(batch) => sink.begin(&batch)?,
                Call::Record(copy) => {
                    sink.record(&copy.view())?;
                    // Nobody needs it once the producer is through.
                    let _ = self.used.send(copy);
                }
                Call::End => sink.end()?,
                Call::Complete(how) => return Ok(Some(how)),
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::atomic::AtomicUsize;
    use std::time::{Duration, Instant};

    use moetrace_routing::{
        ExpertId, LayerIndex, MoeOrdinal, RoutingError, RoutingGeometry, RoutingPlanes, SampleId, Span,
        TokenId,
    };

    use super::*;

    const LAYERS: usize = 2;
    /// Calls of two passes: what the queue holds.
    const QUEUED_CALLS: usize = QUEUED_PASSES * (LAYERS + 2);

    /// Keeps what it hears, and where the weights of a layer lay in memory.
    #[derive(Default)]
    struct Log {
        heard: Vec<String>,
        places: BTreeSet<usize>,
        fails_at: Option<usize>,
    }

    impl Log {
        fn hear(&mut self, what: String) -> Result<(), SinkError> {
            if self.fails_at == Some(self.heard.len()) {
                return Err(SinkError::new("no space left"));
            }
            self.heard.push(what);
            Ok(())
        }
    }

    impl RoutingSink for Log {
        fn begin(&mut self, batch: &TokenBatch) -> Result<(), SinkError> {
            self.hear(format!("{batch:?}"))
        }
        fn record(&mut self, view: &RoutingView<'_>) -> Result<(), SinkError> {
            self.places.extend(view.weights().map(|weights| weights.as_ptr().addr()));
            self.hear(format!("{view:?}"))
        }
        fn end(&mut self) -> Result<(), SinkError> {
            self.hear("end".into())
        }
    }

    fn batch(pass: u32) -> Result<TokenBatch, RoutingError> {
        let span = Span {
            sample: SampleId(pass),
            dataset: "d".into(),
            label: None,
            start: 0,
            len: 3,
            begins_with_bos: false,
        };
        TokenBatch::new((pass..pass + 3).map(TokenId).collect(), vec![0, 1, 2], vec![span])
    }

    /// Passes of three tokens, as an engine would make them.
    fn drive(sink: &mut dyn RoutingSink, passes: std::ops::Range<u32>) -> Result<(), SinkError> {
        let geometry = RoutingGeometry::new(4, 1, 2, vec![LayerIndex(1), LayerIndex(2)])?;
        for pass in passes {
            sink.begin(&batch(pass)?)?;
            for layer in 0..LAYERS as u16 {
                let values = [pass as f32, f32::from(layer), 0.5];
                let planes = RoutingPlanes {
                    experts: &[ExpertId(0), ExpertId(layer), ExpertId(3)],
                    weights: Some(&values),
                    margins: Some(&values),
                    gate_entropy: Some(&values),
                    ..RoutingPlanes::default()
                };
                sink.record(&RoutingView::new(&geometry, MoeOrdinal(layer), 3, planes)?)?;
            }
            sink.end()?;
        }
        Ok(())
    }

    #[test]
    fn the_other_end_hears_the_same_calls_in_the_same_order_in_buffers_that_serve_again() {
        let (mut direct, mut log, alarm) = (Log::default(), Log::default(), AtomicBool::new(false));
        drive(&mut direct, 0..50).unwrap();
        let wants = Planes { nll: true, ..Planes::default() };
        let (mut calls, heard) = handover(wants, LAYERS, &alarm);
        assert_eq!(calls.wants(), wants);
        std::thread::scope(|scope| {
            let player = scope.spawn(|| heard.play(&mut log));
            drive(&mut calls, 0..50).unwrap();
            let how = CarriedOut { passes: 50, halvings: 1, tokens_per_pass: 3, usage: None };
            calls.complete(how);
            assert_eq!(player.join().unwrap().unwrap(), Some(how));
        });
        assert_eq!(log.heard, direct.heard);
        let most = QUEUED_PASSES * LAYERS + 2;
        assert!(log.places.len() <= most, "{} buffers for {most} layers", log.places.len());
    }

    #[test]
    fn an_error_stops_the_producer_and_is_told_by_whom_it_happened_to() {
        for fails_at in [0, 2, 3] {
            let alarm = AtomicBool::new(false);
            let mut log = Log { fails_at: Some(fails_at), ..Log::default() };
            let (mut calls, heard) = handover(Planes::default(), LAYERS, &alarm);
            std::thread::scope(|scope| {
                let player = scope.spawn(|| heard.play(&mut log));
                // More than the queue holds: it does not wait for ever.
                assert!(drive(&mut calls, 0..100).unwrap_err().inner().is::<Failed>());
                assert_eq!(player.join().unwrap().unwrap_err().to_string(), "no space left");
            });
            assert_eq!(log.heard.len(), fails_at);
        }
    }

    #[test]
    fn an_alarm_stops_the_producer_at_its_next_call() {
        let alarm = AtomicBool::new(false);
        let (mut calls, _heard) = handover(Planes::default(), LAYERS, &alarm);
        calls.begin(&batch(0).unwrap()).unwrap();
        alarm.store(true, Ordering::Relaxed);
        assert!(calls.end().unwrap_err().inner().is::<Failed>());
    }

    #[test]
    fn a_producer_waits_once_two_passes_are_queued() {
        struct Counting<'a>(Handover<'a>, &'a AtomicUsize);
        impl RoutingSink for Counting<'_> {
            fn begin(&mut self, batch: &TokenBatch) -> Result<(), SinkError> {
                self.0.begin(batch)?;
                self.1.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            fn record(&mut self, view: &RoutingView<'_>) -> Result<(), SinkError> {
                self.0.record(view)?;
                self.1.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            fn end(&mut self) -> Result<(), SinkError> {
                self.0.end()?;
                self.1.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
        }
        let (alarm, made) = (AtomicBool::new(false), AtomicUsize::new(0));
        let (calls, heard) = handover(Planes::default(), LAYERS, &alarm);
        std::thread::scope(|scope| {
            let producer = scope.spawn(|| drive(&mut Counting(calls, &made), 0..10));
            let begun = Instant::now();
            while made.load(Ordering::Relaxed) < QUEUED_CALLS && begun.elapsed() < Duration::from_secs(20) {
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::sleep(Duration::from_millis(20));
            assert_eq!(made.load(Ordering::Relaxed), QUEUED_CALLS);
            drop(heard);
            assert!(producer.join().unwrap().is_err());
        });
    }

    #[test]
    fn a_producer_that_fails_midway_leaves_its_calls_to_be_dropped() {
        let (mut log, alarm) = (Log::default(), AtomicBool::new(false));
        let (mut calls, heard) = handover(Planes::default(), LAYERS, &alarm);
        drive(&mut calls, 0..1).unwrap();
        calls.begin(&batch(1).unwrap()).unwrap();
        drop(calls);
        assert!(heard.play(&mut log).unwrap().is_none(), "it was taken for complete");
        assert_eq!(log.heard.len(), LAYERS + 3);
    }
}
