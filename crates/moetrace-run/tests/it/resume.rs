//! Pass size, threads, shard ranges and interruptions leave no trace in the data.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use moetrace_metrics::MetricsSettings;
use moetrace_run::{RunFolder, ShardRange, Trust, replay};

use crate::support::{Arithmetic, Call, assert_same, content, plan};

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
