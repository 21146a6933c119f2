//! The engine runs one shard while the shard before it is finished and committed.
//!
//! The engine stays on the caller's thread; each shard has a thread of its own that writes, counts and commits what
//! is handed over. A shard is told that its passes are through only when the shard before it is committed, so that
//! shards are committed in their order, one at a time, and at most two are in being.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, Scope, ScopedJoinHandle};

use moetrace_corpus::passes;
use moetrace_model::Engine;
use moetrace_trace::TraceError;

use crate::handover::handover;
use crate::lock::Lock;
use crate::produce::Passes;
use crate::tally::Tally;
use crate::write::{Committed, Writing};
use crate::{RunError, Shard};

/// What the shards of a run are put through.
pub(crate) struct Pipeline<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    writing: Writing<'env>,
    stop: &'env AtomicBool,
    /// Set by whichever thread fails; the engine then ends at its next layer.
    alarm: &'env AtomicBool,
    /// The shard whose passes are through.
    behind: Option<Worker<'scope>>,
}

/// A shard's thread.
struct Worker<'scope>(ScopedJoinHandle<'scope, Result<Option<Committed>, RunError>>);

impl Worker<'_> {
    /// Waits for it; what it panicked with goes on here.
    fn wait(self) -> Result<Option<Committed>, RunError> {
        self.0.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Rings if the thread that holds it panics.
struct RingOnPanic<'a>(&'a AtomicBool);

impl Drop for RingOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

impl<'scope, 'env> Pipeline<'scope, 'env> {
    pub(crate) fn new(
        scope: &'scope Scope<'scope, 'env>,
        writing: Writing<'env>,
        stop: &'env AtomicBool,
        alarm: &'env AtomicBool,
    ) -> Self {
        Self { scope, writing, stop, alarm, behind: None }
    }

    /// Runs the passes of a shard and leaves it to be committed; by then the shard before it is. `false` if it was
    /// told to stop: the shard is dropped, and nothing of it is left behind.
    ///
    /// Of several errors that of the earlier shard is reported, and in a shard that of whoever writes: it happened to
    /// a pass that the engine had done.
    pub(crate) fn shard(
        &mut self,
        shard: &'env Shard,
        lock: Lock,
        engine: &mut dyn Engine,
        tally: &mut Tally<'_>,
    ) -> Result<bool, RunError> {
        let (writing, alarm) = (self.writing, self.alarm);
        let samples = &writing.plan.corpus.datasets[shard.dataset].samples[shard.range()];
        let ranges = passes(samples, writing.execution.tokens_per_pass);
        let of = ranges.len() as u64;
        let open = writing.open(shard)?;
        let (mut calls, heard) = handover(open.wants(), writing.plan.geometry.layers().len(), alarm);
        let work = move || {
            let _ring = RingOnPanic(alarm);
            let written = writing.write(open, heard, of, || alarm.store(true, Ordering::Relaxed));
            // Whoever takes it finds the shard committed, or nothing of it.
            drop(lock);
            written
        };
        // Without a thread the lock is free again; what was opened is removed when the shard is next begun.
        let thread = Builder::new().name("shard-writer".to_owned()).spawn_scoped(self.scope, work);
        let worker = Worker(thread.map_err(|source| TraceError::Thread { source })?);
        let run = Passes { plan: writing.plan, shard, ranges: &ranges, stop: self.stop };
        let through = run.run(engine, &mut calls, &mut |event| {
            tally.tell(event);
            self.look_behind(tally)
        });
        let before = self.settle(tally);
        if let (Ok(true), Ok(())) = (&through, &before) {
            calls.complete();
            self.behind = Some(worker);
            return Ok(true);
        }
        drop(calls);
        let written = worker.wait();
        before?;
        written?;
        through
    }

    /// Waits until the shard behind, if there is one, is committed, and counts it.
    pub(crate) fn settle(&mut self, tally: &mut Tally<'_>) -> Result<(), RunError> {
        match self.behind.take().map(Worker::wait).transpose()?.flatten() {
            Some(committed) => tally.committed(committed),
            None => Ok(()),
        }
    }

    /// The same if it has failed: between two shards nobody else can have raised the alarm.
    pub(crate) fn settle_a_failure(&mut self, tally: &mut Tally<'_>) -> Result<(), RunError> {
        if self.alarm.load(Ordering::Relaxed) { self.settle(tally) } else { Ok(()) }
    }

    /// The same if there is nothing to wait for. An error is left where it is: the engine hears the alarm.
    fn look_behind(&mut self, tally: &mut Tally<'_>) -> Result<(), RunError> {
        let is_done = self.behind.as_ref().is_some_and(|worker| worker.0.is_finished());
        if is_done && !self.alarm.load(Ordering::Relaxed) { self.settle(tally) } else { Ok(()) }
    }
}
