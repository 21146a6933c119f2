//! Committed files that were changed behind our back are found and can be done again.

use moetrace_metrics::MetricsSettings;
use moetrace_run::{RunError, RunFolder, ShardState, Trust, replay, status};

use serde_json::Value;

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
    let status = status(&folder, &folder.manifest().unwrap());
    let damaged: Vec<bool> = status.shards.iter().map(|s| matches!(s.2, ShardState::Damaged(_))).collect();
    assert_eq!(damaged[..3], [true, true, true]);
    assert!(!damaged[3..].contains(&true));
    assert_eq!(status.committed, plan.shards.len() - 3);
    assert!(Call::default().collect(&out, &plan).is_err());
    let outcome = Call { repair: true, ..Call::default() }.collect(&out, &plan).unwrap();
    assert_eq!((outcome.written, outcome.complete), (3, true));
    assert_same(&out, &whole);
}

#[test]
fn shards_of_another_plan_and_records_that_lie_are_found_by_everything_that_reads_them() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, mut other) = (plan(dir.path(), content()), content());
    other.seed = 8;
    let other = plan(dir.path(), other);
    let (whole, out, theirs) = (dir.path().join("whole"), dir.path().join("run"), dir.path().join("theirs"));
    for (to, plan) in [(&whole, &ours), (&out, &ours), (&theirs, &other)] {
        Call::default().collect(to, plan).unwrap();
    }
    let (folder, theirs) = (RunFolder::new(&out), RunFolder::new(&theirs));
    let (shard, manifest) = (&ours.shards[0], folder.manifest().unwrap());
    let record = std::fs::read_to_string(folder.commit_path(&shard.name)).unwrap();
    let with = |change: &dyn Fn(&mut Value)| {
        let mut changed: Value = serde_json::from_str(&record).unwrap();
        change(&mut changed);
        changed.to_string()
    };
    let lies = [
        with(&|r| r["files"] = Value::Array(Vec::new())),
        with(&|r| r["files"][0]["folder"] = "../../../etc".into()),
        with(&|r| r["files"].as_array_mut().unwrap().swap(0, 1)),
        with(&|r| r["files"][1]["rows"] = 99.into()),
        with(&|r| r["shard"] = ours.shards[1].name.clone().into()),
        with(&|r| r["shard"] = "../../evil".into()),
        with(&|r| r["first"] = 1.into()),
        with(&|r| r["samples"] = 1.into()),
        with(&|r| r["rows"] = 1.into()),
        with(&|r| r["plan_hash"] = "0".repeat(64).into()),
        std::fs::read_to_string(theirs.commit_path(&shard.name)).unwrap(),
    ];
    for (i, lie) in lies.iter().enumerate() {
        if i + 1 == lies.len() {
            for kind in ["data", "samples", "hidden"] {
                std::fs::copy(theirs.shard_path(kind, &shard.name), folder.shard_path(kind, &shard.name))
                    .unwrap();
            }
        }
        std::fs::write(folder.commit_path(&shard.name), lie).unwrap();
        let error = Call::default().collect(&out, &ours).unwrap_err();
        assert!(
            matches!(&error, RunError::Damaged { path, .. } if *path == folder.commit_path(&shard.name)),
            "{i}: {error}"
        );
        assert!(replay(&folder, &manifest, &MetricsSettings::default(), Trust::Sizes).is_err(), "{i}");
        assert!(matches!(status(&folder, &manifest).shards[0].2, ShardState::Damaged(_)), "{i}");
        let outcome = Call { repair: true, ..Call::default() }.collect(&out, &ours).unwrap();
        assert_eq!((outcome.written, outcome.complete), (1, true), "{i}");
        assert_same(&out, &whole);
    }
    // What only the plan knows: which tokens went in.
    std::fs::write(folder.commit_path(&shard.name), with(&|r| r["input_hash"] = "0".into())).unwrap();
    let error = Call::default().collect(&out, &ours).unwrap_err();
    assert!(matches!(&error, RunError::Damaged { what, .. } if what.contains("tokens")), "{error}");
}
