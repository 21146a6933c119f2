//! The engine runs one shard while the shard before it is finished and committed.
//!
//! The engine stays on the caller's thread; each shard has a thread of its own that writes, counts and commits what
//! is handed over. A shard is told that its passes are through only when the shard before it is committed, so that
//! shards are committed in their order, one at a time, and at most two are in being.
//!
//! Where memory runs out in a pass, the shard before is committed as ever, the shard itself is given up with nothing
//! left of it, and it begins again with passes of half as many tokens. Its lock is held throughout.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, Scope, ScopedJoinHandle};

use moetrace_corpus::passes;
use moetrace_model::{Engine, ModelError};
use moetrace_trace::TraceError;

use crate::handover::handover;
use crate::lock::Lock;
use crate::pass_size::PassSize;
use crate::produce::Passes;
use crate::tally::Tally;
use crate::usage::Meter;
use crate::write::{CarriedOut, Committed, Writing};
use crate::{RunError, RunEvent, Shard};

/// What the shards of a run are put through.
pub(crate) struct Pipeline<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    writing: Writing<'env>,
    stop: &'env AtomicBool,
    /// Set by whichever thread fails; the engine then ends at its next layer.
    alarm: &'env AtomicBool,
    /// The shard whose passes are through.
    behind: Option<Worker<'scope>>,
    passes: PassSize,
    meter: Meter<'env>,
}

/// How an attempt at a shard ended, if nothing failed for good.
enum Attempt {
    /// It waits to be committed.
    Through,
    Stopped,
    /// Nothing is left of it, and its lock is still ours.
    OutOfMemory(ModelError, Lock),
}

/// How a shard's thread ended.
enum Written {
    Committed(Box<Committed>),
    /// Its producer gave up; nothing is left of it.
    GivenUp(Lock),
}

/// A shard's thread.
struct Worker<'scope>(ScopedJoinHandle<'scope, Result<Written, RunError>>);

impl Worker<'_> {
    /// Waits for it; what it panicked with goes on here.
    fn wait(self) -> Result<Written, RunError> {
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
        meter: Meter<'env>,
        stop: &'env AtomicBool,
        alarm: &'env AtomicBool,
    ) -> Self {
        let passes = PassSize::new(writing.execution.tokens_per_pass);
        Self { scope, writing, stop, alarm, behind: None, passes, meter }
    }

    /// Runs the passes of a shard and leaves it to be committed; by then the shard before it is. `false` if it was
    /// told to stop: the shard is dropped, and nothing of it is left behind. Where memory runs out the shard is dropped
    /// likewise, and begins again with smaller passes.
    ///
    /// Of several errors that of the earlier shard is reported, and in a shard that of whoever writes: it happened to
    /// a pass that the engine had done.
    pub(crate) fn shard(
        &mut self,
        shard: &'env Shard,
        mut lock: Lock,
        engine: &mut dyn Engine,
        tally: &mut Tally<'_>,
    ) -> Result<bool, RunError> {
        self.meter.begin(&engine.usage());
        let mut halvings = 0;
        loop {
            let why = match self.attempt(shard, lock, halvings, engine, tally)? {
                Attempt::Through => return Ok(true),
                Attempt::Stopped => return Ok(false),
                Attempt::OutOfMemory(why, ours) => {
                    lock = ours;
                    why
                }
            };
            if self.stop.load(Ordering::Relaxed) {
                return Ok(false);
            }
            let (from, usage) = (self.passes.tokens, engine.usage());
            if let Err(error) = self.passes.halve(engine, self.writing.plan) {
                // What it says of itself is the later news.
                let source = Box::new(error.unwrap_or(why));
                return Err(RunError::OutOfMemory {
                    shard: shard.name.clone(),
                    tokens_per_pass: from,
                    source,
                });
            }
            halvings += 1;
            let dataset = &self.writing.plan.corpus.datasets[shard.dataset].name;
            tally.tell(RunEvent::Halved { shard, dataset, from, to: self.passes.tokens, usage, why: &why });
        }
    }

    /// Runs the passes of a shard once, from its first.
    fn attempt(
        &mut self,
        shard: &'env Shard,
        lock: Lock,
        halvings: u32,
        engine: &mut dyn Engine,
        tally: &mut Tally<'_>,
    ) -> Result<Attempt, RunError> {
        let (writing, alarm, tokens_per_pass) = (self.writing, self.alarm, self.passes.tokens);
        let samples = &writing.plan.corpus.datasets[shard.dataset].samples[shard.range()];
        let ranges = passes(samples, tokens_per_pass);
        let open = writing.open(shard)?;
        let (mut calls, heard) = handover(open.wants(), writing.plan.geometry.layers().len(), alarm);
        let work = move || {
            let _ring = RingOnPanic(alarm);
            // However it ends but given up, the lock is free from here: whoever takes it finds the shard committed, or
            // nothing of it.
            let written = writing.write(open, heard, || alarm.store(true, Ordering::Relaxed))?;
            Ok(written.map_or_else(|| Written::GivenUp(lock), |shard| Written::Committed(Box::new(shard))))
        };
        // Without a thread the lock is free again; what was opened is removed when the shard is next begun.
        let thread = Builder::new().name("shard-writer".to_owned()).spawn_scoped(self.scope, work);
        let worker = Worker(thread.map_err(|source| TraceError::Thread { source })?);
        let run = Passes { plan: writing.plan, shard, ranges: &ranges, stop: self.stop };
        let through = run.run(engine, &mut calls, &mut |event| {
            if let RunEvent::Pass { usage, .. } = &event {
                self.meter.look(usage);
            }
            tally.tell(event);
            self.look_behind(tally)
        });
        self.meter.look(&engine.usage());
        let before = self.settle(tally);
        if let (Ok(true), Ok(())) = (&through, &before) {
            let usage = self.meter.lap(&engine.usage());
            calls.complete(CarriedOut { passes: ranges.len() as u64, halvings, tokens_per_pass, usage });
            self.behind = Some(worker);
            return Ok(Attempt::Through);
        }
        drop(calls);
        let written = worker.wait();
        before?;
        match (through, written?) {
            (Err(RunError::Model(why)), Written::GivenUp(lock)) if why.is_out_of_memory() => {
                Ok(Attempt::OutOfMemory(why, lock))
            }
            (through, _) => through.map(|_| Attempt::Stopped),
        }
    }

    /// Waits until the shard behind, if there is one, is committed, and counts it.
    pub(crate) fn settle(&mut self, tally: &mut Tally<'_>) -> Result<(), RunError> {
        match self.behind.take().map(Worker::wait).transpose()? {
            Some(Written::Committed(committed)) => tally.committed(*committed),
            Some(Written::GivenUp(_)) | None => Ok(()),
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
