//! Two processes on one folder: the lock is the system's, so a second file handle stands for a second process.

use std::fs::{File, OpenOptions};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use moetrace_run::{RunError, RunFolder, ShardRange, ShardState, status};

use crate::support::{Arithmetic, Call, assert_same, content, plan};

#[test]
fn a_shard_that_another_process_writes_is_left_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(dir.path(), content());
    let (whole, out) = (dir.path().join("whole"), dir.path().join("run"));
    Call::default().collect(&whole, &plan).unwrap();
    let folder = RunFolder::new(&out);
    std::fs::create_dir_all(out.join("state/locks")).unwrap();
    let path = out.join("state/locks").join(format!("{}.lock", plan.shards[1].name));
    std::fs::write(&path, "pid 4711").unwrap();
    let theirs = OpenOptions::new().write(true).open(&path).unwrap();
    theirs.try_lock().unwrap();
    let error = Call::default().collect(&out, &plan).unwrap_err();
    assert!(matches!(&error, RunError::Locked { busy: 1, holder, .. } if holder == "pid 4711"), "{error}");
    let states = status(&folder, &folder.manifest().unwrap());
    assert_eq!(states.shards[1].2, ShardState::Writing("pid 4711".into()));
    assert_eq!(states.committed, plan.shards.len() - 1);
    drop(theirs);
    assert!(Call::default().collect(&out, &plan).unwrap().complete);
    assert_same(&out, &whole);
}

#[test]
fn two_at_once_share_the_work() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(dir.path(), content());
    let (whole, out) = (dir.path().join("whole"), dir.path().join("run"));
    Call::default().collect(&whole, &plan).unwrap();
    let results: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(|| Call::default().collect(&out, &plan))).collect();
        workers.into_iter().map(|w| w.join().unwrap()).collect()
    });
    for result in &results {
        assert!(matches!(result, Ok(_) | Err(RunError::Locked { .. })), "{result:?}");
    }
    // The last one finds everything committed and concludes the run; nobody has to call again.
    assert!(results.iter().flatten().any(|outcome| outcome.complete), "{results:?}");
    assert_same(&out, &whole);
}

#[test]
fn a_shard_that_was_busy_is_looked_at_again_before_it_is_left_to_others() {
    let dir = tempfile::tempdir().unwrap();
    let plan_again = plan;
    let plan = plan(dir.path(), content());
    let (whole, out) = (dir.path().join("whole"), dir.path().join("run"));
    Call::default().collect(&whole, &plan).unwrap();
    for they_finish in [true, false] {
        let _ = std::fs::remove_dir_all(&out);
        std::fs::create_dir_all(out.join("state/locks")).unwrap();
        let path = out.join("state/locks").join(format!("{}.lock", plan.shards[0].name));
        let theirs = File::create(&path).unwrap();
        theirs.try_lock().unwrap();
        let mut theirs = Some(theirs);
        let mut engine = Arithmetic::new();
        // In the last shards of ours they end: with theirs committed, or without.
        let (theirs_out, theirs_plan) = (out.clone(), plan_again(dir.path(), content()));
        engine.before_layer = Some(Box::new(move |passes, _| {
            if passes == 5 && theirs.take().is_some() && they_finish {
                let range = Some(ShardRange { from: 0, to: 1 });
                Call { range, ..Call::default() }.collect(&theirs_out, &theirs_plan).unwrap();
            }
        }));
        let outcome = Call { engine, ..Call::default() }.collect(&out, &plan).unwrap();
        assert!(outcome.complete, "{outcome:?}");
        assert_eq!(outcome.written, plan.shards.len() - usize::from(they_finish));
        assert_eq!(outcome.metrics.report().samples, 13);
        assert_same(&out, &whole);
    }
}

#[test]
fn status_creates_nothing_changes_nothing_and_keeps_no_writer_from_its_lock() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(dir.path(), content());
    let out = dir.path().join("run");
    let range = Some(ShardRange { from: 0, to: 1 });
    Call { range, ..Call::default() }.collect(&out, &plan).unwrap();
    let folder = RunFolder::new(&out);
    let manifest = folder.manifest().unwrap();
    let locks = || std::fs::read_dir(out.join("state/locks")).unwrap().count();
    let before = locks();
    assert_eq!(status(&folder, &manifest).shards[1].2, ShardState::Open);
    assert_eq!(locks(), before);
    // Looking takes the lock shared for an instant, as this handle does for longer than any.
    let path = out.join("state/locks").join(format!("{}.lock", plan.shards[1].name));
    let looking = File::create(&path).unwrap();
    looking.try_lock_shared().unwrap();
    let outcome = std::thread::scope(|scope| {
        let worker = scope.spawn(|| Call::default().collect(&out, &plan));
        std::thread::sleep(Duration::from_millis(30));
        looking.unlock().unwrap();
        worker.join().unwrap()
    });
    assert!(outcome.unwrap().complete);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "pid 1", "the writer's name, not the looker's");
}

#[test]
fn many_who_look_make_no_run_fail() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(dir.path(), content());
    let out = dir.path().join("run");
    Call { range: Some(ShardRange { from: 0, to: 1 }), ..Call::default() }.collect(&out, &plan).unwrap();
    let folder = RunFolder::new(&out);
    let manifest = folder.manifest().unwrap();
    let done = AtomicBool::new(false);
    let outcomes = std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    status(&folder, &manifest);
                }
            });
        }
        let again = |_| {
            let outcome = Call::default().collect(&out, &plan);
            // All shards are to be done again.
            let _ = std::fs::remove_dir_all(out.join("state/commits"));
            outcome
        };
        let outcomes: Vec<_> = (0..10).map(again).collect();
        done.store(true, Ordering::Relaxed);
        outcomes
    });
    for outcome in outcomes {
        assert!(outcome.as_ref().is_ok_and(|outcome| outcome.complete), "{outcome:?}");
    }
}

#[test]
fn a_run_with_somebody_at_work_is_not_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(dir.path(), content());
    let (out, aside) = (dir.path().join("run"), dir.path().join("run.bak"));
    Call::default().collect(&out, &plan).unwrap();
    let folder = RunFolder::new(&out);
    for lock in ["run.lock".to_owned(), format!("locks/{}.lock", plan.shards[0].name)] {
        let theirs = File::create(out.join("state").join(lock)).unwrap();
        theirs.try_lock().unwrap();
        let error = folder.set_aside(&aside).unwrap_err();
        assert!(matches!(error, RunError::Locked { .. }), "{error}");
        assert!(out.is_dir() && !aside.exists());
    }
    assert!(folder.set_aside(&aside).unwrap());
    assert!(!out.exists() && aside.join("manifest.json").exists());
    assert!(!folder.set_aside(&dir.path().join("other")).unwrap(), "nothing is there any more");
}
