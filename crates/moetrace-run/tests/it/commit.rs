//! A run that is stopped at any call to the disk, and continued, equals one that was not.

use std::error::Error;
use std::sync::atomic::Ordering;

use moetrace_run::RunError;

use crate::support::{Call, Fault, FaultyFs, assert_same, content, plan};

/// Runs with the fault at call 0, 1, 2, …; each time continues on a sound disk and compares.
fn every_call(fault: Fault) -> usize {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(dir.path(), content());
    let whole = dir.path().join("whole");
    Call::default().collect(&whole, &plan).unwrap();
    let mut at = 0;
    loop {
        let out = dir.path().join("broken");
        let fs = FaultyFs::new(at, fault);
        let first = Call { fs: &fs, ..Call::default() }.collect(&out, &plan);
        let calls = fs.calls.load(Ordering::SeqCst);
        if calls <= at {
            assert!(first.is_ok(), "without a fault the run must end well");
            return at;
        }
        if let Err(error) = &first {
            assert!(is_full_disk(error), "{at}: {error:?}");
        }
        let again = Call::default().collect(&out, &plan);
        assert!(again.is_ok(), "call {at}: {again:?}");
        let again = again.unwrap();
        assert_eq!((again.committed, again.complete), (again.shards, true), "call {at}");
        assert_eq!(std::fs::read_dir(out.join("tmp")).unwrap().count(), 0, "call {at}: a leftover stays");
        assert_same(&out, &whole);
        std::fs::remove_dir_all(&out).unwrap();
        at += 1;
    }
}

#[test]
fn a_crash_at_any_call_loses_and_doubles_nothing() {
    let calls = every_call(Fault::Crash);
    assert!(calls > 100, "only {calls} calls were tried");
}

#[test]
fn a_full_disk_at_any_call_loses_and_doubles_nothing() {
    let calls = every_call(Fault::NoSpace);
    assert!(calls > 100, "only {calls} calls were tried");
}

/// Whether a full disk is at the bottom of it: the cause must reach the user, whatever it went through.
fn is_full_disk(error: &RunError) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return io.kind() == std::io::ErrorKind::StorageFull;
        }
        cause = error.source();
    }
    false
}
