//! Committed files that were changed behind our back are found and can be done again.

use moetrace_metrics::MetricsSettings;
use moetrace_run::{RunError, RunFolder, ShardState, Trust, replay, status};

use crate::support::{Call, assert_same, content, plan};

#[test]
fn a_flipped_bit_is_found_and_repair_does_only_that_shard_again() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(dir.path(), content());
    let (whole, out) = (dir.path().join("whole"), dir.path().join("run"));
    Call::default().collect(&whole, &plan).unwrap();
    Call::default().collect(&out, &plan).unwrap();
    let folder = RunFolder::new(&out);
    for kind in ["data", "samples", "hidden"] {
        let path = folder.shard_path(kind, &plan.shards[1].name);
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        std::fs::write(&path, bytes).unwrap();
        let error = Call::default().collect(&out, &plan).unwrap_err();
        assert!(matches!(&error, RunError::Hash { path: p, .. } if *p == path), "{kind}: {error}");
        let manifest = folder.manifest().unwrap();
        assert!(replay(&folder, &manifest, &MetricsSettings::default(), Trust::Nothing).is_err());
        let outcome = Call { repair: true, ..Call::default() }.collect(&out, &plan).unwrap();
        assert_eq!((outcome.written, outcome.complete), (1, true));
        assert_same(&out, &whole);
    }
}

#[test]
fn a_shortened_a_missing_and_an_unreadable_record_are_named_by_status_and_repaired() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(dir.path(), content());
    let (whole, out) = (dir.path().join("whole"), dir.path().join("run"));
    Call::default().collect(&whole, &plan).unwrap();
    Call::default().collect(&out, &plan).unwrap();
    let folder = RunFolder::new(&out);
    let data = |i: usize| folder.shard_path("data", &plan.shards[i].name);
    let bytes = std::fs::read(data(0)).unwrap();
    std::fs::write(data(0), &bytes[..bytes.len() - 1]).unwrap();
    std::fs::remove_file(data(1)).unwrap();
    std::fs::write(folder.commit_path(&plan.shards[2].name), "{").unwrap();
    let status = status(&folder, &folder.manifest().unwrap()).unwrap();
    let damaged: Vec<bool> = status.shards.iter().map(|s| matches!(s.2, ShardState::Damaged(_))).collect();
    assert_eq!(damaged[..3], [true, true, true]);
    assert!(!damaged[3..].contains(&true));
    assert_eq!(status.committed, plan.shards.len() - 3);
    assert!(Call::default().collect(&out, &plan).is_err());
    let outcome = Call { repair: true, ..Call::default() }.collect(&out, &plan).unwrap();
    assert_eq!((outcome.written, outcome.complete), (3, true));
    assert_same(&out, &whole);
}
