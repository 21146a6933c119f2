//! Two processes on one folder: the lock is the system's, so a second file handle stands for a second process.

use std::fs::OpenOptions;

use moetrace_run::{RunError, RunFolder, ShardState, status};

use crate::support::{Call, assert_same, content, plan};

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
    let states = status(&folder, &folder.manifest().unwrap()).unwrap();
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
    assert!(Call::default().collect(&out, &plan).unwrap().complete);
    assert_same(&out, &whole);
}
