//! Pass size, threads, shard ranges and interruptions leave no trace in the data.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use moetrace_metrics::MetricsSettings;
use moetrace_run::{RunFolder, ShardRange, Trust, replay};

use crate::support::{Arithmetic, Call, assert_same, content, files, plan};

#[test]
fn any_pass_size_and_thread_count_give_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(dir.path(), content());
    let whole = dir.path().join("whole");
    Call::default().collect(&whole, &plan).unwrap();
    for (i, (tokens_per_pass, threads)) in [(1, 1), (7, 2), (40, 2), (100_000, 1)].into_iter().enumerate() {
        let out = dir.path().join(i.to_string());
        Call { tokens_per_pass, threads, ..Call::default() }.collect(&out, &plan).unwrap();
        assert_same(&out, &whole);
    }
}

#[test]
fn ranges_of_shards_add_up_to_the_whole_run() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(dir.path(), content());
    let whole = dir.path().join("whole");
    let of = Call::default().collect(&whole, &plan).unwrap().shards;
    assert!(of > 4, "{of} shards are too few to split");
    let out = dir.path().join("parts");
    for (from, to) in [(3, of), (0, 2), (2, 3)] {
        let outcome =
            Call { range: Some(ShardRange { from, to }), ..Call::default() }.collect(&out, &plan).unwrap();
        assert_eq!(outcome.written, to - from);
        assert_eq!(outcome.complete, outcome.committed == of);
    }
    assert_same(&out, &whole);
}

#[test]
fn an_interrupted_run_continues_to_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(dir.path(), content());
    let whole = dir.path().join("whole");
    let passes = Call::default().collect(&whole, &plan).unwrap().shards * 2;
    let out = dir.path().join("stopped");
    let mut interruptions = 0;
    for after in 1..passes {
        let stop = Arc::new(AtomicBool::new(false));
        let mut engine = Arithmetic::new();
        engine.stop_after = Some((1 + after % 2, Arc::clone(&stop)));
        let outcome = Call { engine, stop, ..Call::default() }.collect(&out, &plan).unwrap();
        interruptions += usize::from(outcome.interrupted);
        if !outcome.interrupted {
            break;
        }
    }
    assert!(interruptions > 2);
    Call::default().collect(&out, &plan).unwrap();
    assert_same(&out, &whole);
}

#[test]
fn a_stop_breaks_a_pass_off_at_its_next_layer_and_leaves_nothing_of_the_shard() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(dir.path(), content());
    let out = dir.path().join("run");
    let stop = Arc::new(AtomicBool::new(false));
    let heard = Arc::new(AtomicUsize::new(0));
    let mut engine = Arithmetic::new();
    let (asked, calls) = (Arc::clone(&stop), Arc::clone(&heard));
    engine.before_layer = Some(Box::new(move |passes, layer| {
        calls.fetch_add(1, Ordering::Relaxed);
        if (passes, layer) == (1, 0) {
            asked.store(true, Ordering::Relaxed);
        }
    }));
    let call = Call { engine, stop, tokens_per_pass: 100_000, ..Call::default() };
    let outcome = call.collect(&out, &plan).unwrap();
    assert!(outcome.interrupted && !outcome.complete);
    assert_eq!((outcome.written, outcome.committed), (1, 1));
    assert_eq!(heard.load(Ordering::Relaxed), 2 + 1, "two layers of the first pass, one of the second");
    assert_eq!(std::fs::read_dir(out.join("data")).unwrap().count(), 1);
    assert_eq!(std::fs::read_dir(out.join("tmp")).unwrap().count(), 0);
    assert!(Call::default().collect(&out, &plan).unwrap().complete);
}

#[test]
fn the_name_of_the_model_is_in_the_manifest_and_changes_no_table() {
    let dir = tempfile::tempdir().unwrap();
    let (first, mut second) = (plan(dir.path(), content()), plan(dir.path(), content()));
    second.model.name = "the same model in a folder of another name".into();
    assert_eq!(first.hash(), second.hash());
    let out = |name: &str| dir.path().join(name);
    Call::default().collect(&out("a"), &first).unwrap();
    Call::default().collect(&out("b"), &second).unwrap();
    let tables = |name: &str| {
        let mut all = files(&out(name));
        all.retain(|path, _| path.extension().is_some_and(|e| e == "parquet"));
        all
    };
    assert!(tables("a") == tables("b"), "a table differs");
}

#[test]
fn a_copy_that_lost_its_empty_folders_or_more_is_continued_and_repaired() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(dir.path(), content());
    let (whole, out) = (dir.path().join("whole"), dir.path().join("run"));
    Call::default().collect(&whole, &plan).unwrap();
    let half = Some(ShardRange { from: 0, to: 3 });
    Call { range: half, ..Call::default() }.collect(&out, &plan).unwrap();
    for lost in ["tmp", "state/locks", "state"] {
        std::fs::remove_dir_all(out.join(lost)).unwrap();
        assert!(Call::default().collect(&out, &plan).unwrap().complete, "{lost}");
        assert_same(&out, &whole);
    }
    for lost in ["data", "samples", "hidden"] {
        std::fs::remove_dir_all(out.join(lost)).unwrap();
        let outcome = Call { repair: true, ..Call::default() }.collect(&out, &plan).unwrap();
        assert_eq!((outcome.written, outcome.complete), (plan.shards.len(), true), "{lost}");
        assert_same(&out, &whole);
    }
}

#[test]
fn what_a_killed_process_left_in_tmp_is_removed_and_its_number_is_no_name() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(dir.path(), content());
    let out = dir.path().join("run");
    std::fs::create_dir_all(out.join("tmp")).unwrap();
    // As an earlier process of the same number left them: in containers all are number 1.
    let pid = std::process::id();
    for name in ["manifest.json", "summary.json", "README.md", &plan.shards[0].name] {
        for attempt in 0..200 {
            std::fs::write(out.join(format!("tmp/{name}.{pid}.{attempt}.part")), "x").unwrap();
        }
    }
    assert!(Call::default().collect(&out, &plan).unwrap().complete);
    assert_eq!(std::fs::read_dir(out.join("tmp")).unwrap().count(), 0);
    // Not while somebody else is at work, whose files they may be.
    std::fs::write(out.join("tmp/theirs.part"), "x").unwrap();
    let theirs = std::fs::File::open(out.join("state/run.lock")).unwrap();
    theirs.try_lock_shared().unwrap();
    Call::default().collect(&out, &plan).unwrap();
    assert!(out.join("tmp/theirs.part").exists());
}

#[test]
fn replayed_numbers_equal_live_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(dir.path(), content());
    let out = dir.path().join("run");
    let live = Call::default().collect(&out, &plan).unwrap().metrics.report();
    let folder = RunFolder::new(&out);
    let manifest = folder.manifest().unwrap();
    let (replayed, committed) =
        replay(&folder, &manifest, &MetricsSettings::default(), Trust::Nothing).unwrap();
    assert_eq!(committed, manifest.shards.len());
    let json = |report| serde_json::to_string(&report).unwrap();
    assert!(live.tokens > 100);
    assert_eq!(json(replayed.report()), json(live));
    // A second call finds nothing to do, never asks for the engine, and sees the same numbers.
    let again = Call::default().collect(&out, &plan).unwrap();
    assert_eq!((again.written, again.complete), (0, true));
    assert_eq!(
        json(again.metrics.report()),
        json(Call::default().collect(&out, &plan).unwrap().metrics.report())
    );
}
