//! One shard is committed while the next one runs: in which order, and what becomes of both when something fails.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use moetrace_run::{Fs, FsFile, Plan, RealFs, RunError, RunEvent};

use crate::support::{Arithmetic, Call, assert_same, content, plan};

/// The real disk, where giving a file its name may wait or fail.
struct Watched<F>(F);

impl<F: Fn(&Path) -> io::Result<()> + Send + Sync> Fs for Watched<F> {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        RealFs.create_new(path)
    }
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        (self.0)(to)?;
        RealFs.rename_new(from, to)
    }
    fn rename_over(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealFs.rename_over(from, to)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        RealFs.sync_dir(path)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        RealFs.remove(path)
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        RealFs.create_dir(path)
    }
}

/// Opened once; waited for from other threads.
#[derive(Default)]
struct Gate(Mutex<bool>, Condvar);

impl Gate {
    fn open(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }

    /// An error if it stays closed, so that a test fails and does not hang.
    fn wait(&self) -> io::Result<()> {
        let shut = self.0.lock().unwrap();
        let (is_open, _) = self.1.wait_timeout_while(shut, Duration::from_secs(20), |open| !*open).unwrap();
        if *is_open { Ok(()) } else { Err(io::ErrorKind::TimedOut.into()) }
    }
}

fn is_data_of(plan: &Plan, shard: usize, path: &Path) -> bool {
    path.parent().is_some_and(|folder| folder.ends_with("data"))
        && path.file_stem().is_some_and(|name| *name == *plan.shards[shard].name)
}

fn passes_of_the_first_shard(plan: &Plan) -> usize {
    let samples = &plan.corpus.datasets[0].samples[plan.shards[0].range()];
    moetrace_corpus::passes(samples, Call::default().tokens_per_pass).len()
}

/// An engine that calls `hook` with the layer whenever it is in another shard than the first.
fn in_later_shards(plan: &Plan, mut hook: impl FnMut(u16) + 'static) -> Arithmetic {
    let mut engine = Arithmetic::new();
    let first = passes_of_the_first_shard(plan);
    engine.before_layer = Some(Box::new(move |passes, layer| {
        if passes >= first {
            hook(layer);
        }
    }));
    engine
}

fn entries(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    Begin(String),
    Pass,
    Committed(String),
}

fn told(into: &mut Vec<Told>) -> impl FnMut(RunEvent<'_>) + '_ {
    |event| match event {
        RunEvent::Begin { shard, .. } => into.push(Told::Begin(shard.name.clone())),
        RunEvent::Pass { .. } => into.push(Told::Pass),
        RunEvent::Committed { record, .. } => into.push(Told::Committed(record.shard.clone())),
        _ => {}
    }
}

#[test]
fn every_commit_tells_how_routing_looks_so_far_and_the_last_one_how_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(dir.path(), content());
    let mut glances = Vec::new();
    let done = Call::default().collect_and_tell(&dir.path().join("run"), &plan, &mut |event| {
        if let RunEvent::Committed { so_far, .. } = event {
            glances.push(so_far);
        }
    });
    let last = done.unwrap().metrics.glance();
    assert_eq!((glances.len(), glances.last()), (plan.shards.len(), Some(&last)));
    assert!(glances.windows(2).all(|pair| pair[0].tokens < pair[1].tokens));
}

#[test]
fn the_next_shard_runs_while_one_is_committed_and_no_more_than_one_waits() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(dir.path(), content());
    let (whole, out) = (dir.path().join("whole"), dir.path().join("run"));
    Call::default().collect(&whole, &plan).unwrap();
    let gate = Arc::new(Gate::default());
    // The first shard gets no name before the engine is in the second one.
    let fs = Watched(|to: &Path| if is_data_of(&plan, 0, to) { gate.wait() } else { Ok(()) });
    let opens = Arc::clone(&gate);
    let engine = in_later_shards(&plan, move |layer| {
        if layer == 1 {
            opens.open();
        }
    });
    let mut events = Vec::new();
    let call = Call { fs: &fs, engine, ..Call::default() };
    assert!(call.collect_and_tell(&out, &plan, &mut told(&mut events)).unwrap().complete);
    assert_same(&out, &whole);
    let at = |event: &Told| events.iter().position(|e| e == event).unwrap();
    let begun = |shard: usize| at(&Told::Begin(plan.shards[shard].name.clone()));
    let committed = |shard: usize| at(&Told::Committed(plan.shards[shard].name.clone()));
    assert!(begun(1) < committed(0), "{events:?}");
    for shard in 0..plan.shards.len() {
        assert!(shard == 0 || committed(shard - 1) < committed(shard), "{events:?}");
        assert!(shard < 2 || committed(shard - 2) < begun(shard), "{events:?}");
        assert!(events[begun(shard)..committed(shard)].contains(&Told::Pass), "{events:?}");
    }
}

#[test]
fn a_commit_that_fails_stops_the_shard_after_it_at_its_next_layer() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(dir.path(), content());
    let (whole, out) = (dir.path().join("whole"), dir.path().join("run"));
    Call::default().collect(&whole, &plan).unwrap();
    let (failed, layers) = (Arc::new(Gate::default()), Arc::new(AtomicUsize::new(0)));
    let fs = Watched(|to: &Path| {
        if !is_data_of(&plan, 0, to) {
            return Ok(());
        }
        failed.open();
        Err(io::ErrorKind::StorageFull.into())
    });
    let (has_failed, heard) = (Arc::clone(&failed), Arc::clone(&layers));
    let engine = in_later_shards(&plan, move |_| {
        has_failed.wait().unwrap();
        // The error is on its way to the alarm.
        std::thread::sleep(Duration::from_millis(300));
        heard.fetch_add(1, Ordering::Relaxed);
    });
    let error = Call { fs: &fs, engine, ..Call::default() }.collect(&out, &plan).unwrap_err();
    let path = format!("data/{}.parquet", plan.shards[0].name);
    assert!(matches!(&error, RunError::Io { path: p, .. } if p.ends_with(&path)), "{error}");
    assert_eq!(layers.load(Ordering::Relaxed), 1);
    for folder in ["data", "samples", "hidden", "tmp", "state/commits"] {
        assert_eq!(entries(&out.join(folder)), 0, "{folder}");
    }
    assert!(Call::default().collect(&out, &plan).unwrap().complete);
    assert_same(&out, &whole);
}

#[test]
fn of_two_errors_that_of_the_earlier_shard_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(dir.path(), content());
    let out = dir.path().join("run");
    let gate = Arc::new(Gate::default());
    let fs = Watched(|to: &Path| {
        if !is_data_of(&plan, 0, to) {
            return Ok(());
        }
        gate.wait()?;
        Err(io::ErrorKind::StorageFull.into())
    });
    let opens = Arc::clone(&gate);
    let mut engine = in_later_shards(&plan, move |layer| {
        if layer == 1 {
            opens.open();
        }
    });
    // The first token of the second shard breaks the engine down, in the layer that opens the gate.
    let second = &plan.shards[1];
    let sample = &plan.corpus.datasets[second.dataset].samples[second.first];
    engine.poison = Some(sample.tokens[0].0);
    let error = Call { fs: &fs, engine, ..Call::default() }.collect(&out, &plan).unwrap_err();
    assert!(matches!(&error, RunError::Io { .. }), "{error}");
    assert_eq!(entries(&out.join("tmp")) + entries(&out.join("data")), 0);
}

#[test]
fn a_commit_that_fails_while_memory_runs_out_is_reported_and_nothing_is_halved() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(dir.path(), content());
    let out = dir.path().join("run");
    let gate = Arc::new(Gate::default());
    let fs = Watched(|to: &Path| {
        if !is_data_of(&plan, 0, to) {
            return Ok(());
        }
        gate.wait()?;
        Err(io::ErrorKind::StorageFull.into())
    });
    let opens = Arc::clone(&gate);
    let mut engine = in_later_shards(&plan, move |layer| {
        if layer == 1 {
            opens.open();
        }
    });
    // Memory runs out in the layer that opens the gate, whichever of the second shard's passes that is.
    engine.out_of_memory = (passes_of_the_first_shard(&plan)..100).collect();
    engine.room = Some((64, |room| Some(room / 2)));
    let mut halved = 0;
    let call = Call { fs: &fs, engine, ..Call::default() };
    let told = &mut |event: RunEvent<'_>| halved += usize::from(matches!(event, RunEvent::Halved { .. }));
    let error = call.collect_and_tell(&out, &plan, told).unwrap_err();
    assert!(matches!(&error, RunError::Io { .. }), "{error}");
    assert_eq!((halved, entries(&out.join("tmp")), entries(&out.join("data"))), (0, 0, 0));
}

#[test]
fn a_stop_drops_the_shard_in_flight_and_commits_the_one_whose_passes_are_through() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(dir.path(), content());
    let out = dir.path().join("run");
    let (gate, stop) = (Arc::new(Gate::default()), Arc::new(AtomicBool::new(false)));
    let fs = Watched(|to: &Path| if is_data_of(&plan, 0, to) { gate.wait() } else { Ok(()) });
    let (opens, asked) = (Arc::clone(&gate), Arc::clone(&stop));
    let engine = in_later_shards(&plan, move |_| {
        asked.store(true, Ordering::Relaxed);
        opens.open();
    });
    let mut events = Vec::new();
    let call = Call { fs: &fs, engine, stop, ..Call::default() };
    let outcome = call.collect_and_tell(&out, &plan, &mut told(&mut events)).unwrap();
    assert!(outcome.interrupted && !outcome.complete);
    assert_eq!((outcome.written, outcome.committed), (1, 1));
    assert_eq!(events.last(), Some(&Told::Committed(plan.shards[0].name.clone())));
    assert_eq!((entries(&out.join("data")), entries(&out.join("tmp"))), (1, 0));
}

#[test]
fn a_panic_behind_the_engine_goes_on_in_front_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(dir.path(), content());
    let (whole, out) = (dir.path().join("whole"), dir.path().join("run"));
    Call::default().collect(&whole, &plan).unwrap();
    for shard in [0, plan.shards.len() - 1] {
        let fs = Watched(|to: &Path| {
            assert!(!is_data_of(&plan, shard, to), "the disk is on fire");
            Ok(())
        });
        let call = Call { fs: &fs, ..Call::default() };
        let panic = catch_unwind(AssertUnwindSafe(|| call.collect(&out, &plan))).unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"the disk is on fire"));
    }
    assert!(Call::default().collect(&out, &plan).unwrap().complete);
    assert_same(&out, &whole);
}
