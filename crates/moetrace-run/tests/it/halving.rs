//! Memory runs out in a pass: the shard begins again with smaller passes, and nobody can tell from what is recorded.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use moetrace_corpus::passes;
use moetrace_run::{CommitRecord, Plan, ProcessUsage, RunError, RunEvent, RunFolder, Summary, Usage, status};

use crate::support::{Arithmetic, Call, Fault, FaultyFs, Halve, assert_same, content, files, plan};

/// Tokens of a pass: a whole shard. Half of it still holds the longest text, 30 tokens, a quarter does not.
const PASS: usize = 64;

/// Four shards of at most 60 tokens.
fn four_shards(dir: &Path) -> Plan {
    let plan = plan(dir, moetrace_run::ContentSettings { shard_tokens: 60, ..content() });
    assert_eq!(plan.shards.len(), 4);
    plan
}

/// Half as many, but not less than the longest text.
fn half_of(room: usize) -> Option<usize> {
    (room / 2 >= 30).then_some(room / 2)
}

/// An engine with room for a pass, whose memory runs out in these calls.
fn short_of_memory(room: usize, calls: &[usize]) -> Arithmetic {
    let mut engine = Arithmetic::new();
    engine.out_of_memory = calls.into();
    engine.room = Some((room, half_of));
    engine
}

fn call(room: usize, calls: &[usize]) -> Call<'static> {
    Call { engine: short_of_memory(room, calls), tokens_per_pass: room, ..Call::default() }
}

/// Every file, and the summary without what says which shards were halved.
fn recorded(run: &Path) -> (BTreeMap<PathBuf, Vec<u8>>, String) {
    let mut found = files(run);
    let text = found.remove(Path::new("summary.json")).unwrap();
    let mut summary: Summary = serde_json::from_slice(&text).unwrap();
    summary.halved.clear();
    (found, serde_json::to_string(&summary).unwrap())
}

fn assert_recorded_alike(found: &Path, expected: &Path) {
    let ((found, summary), (expected, expected_summary)) = (recorded(found), recorded(expected));
    assert!(found.len() > 10 && found.keys().eq(expected.keys()));
    for (name, bytes) in &found {
        assert!(bytes == &expected[name], "{} differs", name.display());
    }
    assert_eq!(summary, expected_summary);
}

fn records(out: &Path, plan: &Plan) -> Vec<CommitRecord> {
    let record = |name: &str| {
        let text = std::fs::read(RunFolder::new(out).commit_path(name)).unwrap();
        serde_json::from_slice(&text).unwrap()
    };
    plan.shards.iter().map(|shard| record(&shard.name)).collect()
}

/// What was told of shards, but for passes.
fn told(into: &mut Vec<String>) -> impl FnMut(RunEvent<'_>) + '_ {
    |event| {
        into.push(match event {
            RunEvent::Begin { shard, .. } => format!("{} begins", shard.name),
            RunEvent::Committed { record, .. } => format!("{} committed", record.shard),
            RunEvent::Halved { shard, from, to, why, .. } => format!("{} {from} to {to}: {why}", shard.name),
            _ => return,
        });
    }
}

#[test]
fn a_shard_that_is_halved_holds_the_same_bytes_and_its_record_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let plan = four_shards(dir.path());
    let whole = dir.path().join("whole");
    let expected = call(PASS, &[]).collect(&whole, &plan).unwrap();
    assert_eq!(expected.halved, Vec::<String>::new());
    for at in 0..plan.shards.len() {
        let out = dir.path().join(format!("halved-{at}"));
        let mut events = Vec::new();
        let outcome = call(PASS, &[at]).collect_and_tell(&out, &plan, &mut told(&mut events)).unwrap();
        assert!(outcome.complete);
        assert_recorded_alike(&out, &whole);
        // What the attempt that was given up had counted is gone.
        assert_eq!(format!("{:?}", outcome.metrics.report()), format!("{:?}", expected.metrics.report()));
        let name = &plan.shards[at].name;
        assert_eq!(outcome.halved, std::slice::from_ref(name));
        for (index, (shard, record)) in plan.shards.iter().zip(records(&out, &plan)).enumerate() {
            let tokens = if index < at { PASS } else { PASS / 2 };
            let samples = &plan.corpus.datasets[shard.dataset].samples[shard.range()];
            assert_eq!(record.halvings, u32::from(index == at));
            assert_eq!(record.execution.tokens_per_pass, tokens);
            assert_eq!(record.passes, passes(samples, tokens).len() as u64);
        }
        // The shard before it is committed first, and it is begun once.
        let halved = events.iter().position(|event| event.contains(" to ")).unwrap();
        assert_eq!(events[halved], format!("{name} 64 to 32: a pass of arithmetic: out of memory"));
        assert_eq!(
            events[halved - 1],
            if at == 0 {
                format!("{name} begins")
            } else {
                format!("{} committed", plan.shards[at - 1].name)
            }
        );
        assert_eq!(events.len(), 2 * plan.shards.len() + 1);
        let folder = RunFolder::new(&out);
        assert_eq!(status(&folder, &folder.manifest().unwrap()).halved, std::slice::from_ref(name));
        let summary: Summary =
            serde_json::from_slice(&std::fs::read(out.join("summary.json")).unwrap()).unwrap();
        assert_eq!((summary.halved, summary.usage), (vec![name.clone()], None));
    }
}

#[test]
fn a_shard_may_be_halved_twice_and_later_ones_keep_what_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let plan = four_shards(dir.path());
    let (whole, out) = (dir.path().join("whole"), dir.path().join("run"));
    call(PASS, &[]).collect(&whole, &plan).unwrap();
    // The second failure comes in the second attempt at the second shard.
    assert!(call(2 * PASS, &[1, 2]).collect(&out, &plan).unwrap().complete);
    assert_recorded_alike(&out, &whole);
    let how = records(&out, &plan).into_iter().map(|r| (r.halvings, r.execution.tokens_per_pass));
    assert_eq!(how.collect::<Vec<_>>(), [(0, 128), (2, 32), (0, 32), (0, 32)]);
}

#[test]
fn at_the_floor_it_stops_with_what_is_committed_and_the_same_call_continues() {
    let dir = tempfile::tempdir().unwrap();
    let plan = four_shards(dir.path());
    let whole = dir.path().join("whole");
    call(PASS, &[]).collect(&whole, &plan).unwrap();
    // No smaller size; one that is too small for the longest text; one that is no smaller.
    let floors: [Halve; 3] = [half_of, |room| Some(room / 2), |room| Some(room.min(PASS / 2))];
    for (index, halve) in floors.into_iter().enumerate() {
        let out = dir.path().join(format!("floor-{index}"));
        let mut short = call(PASS, &[1, 2, 3]);
        short.engine.room = Some((PASS, halve));
        let mut events = Vec::new();
        let error = short.collect_and_tell(&out, &plan, &mut told(&mut events)).unwrap_err();
        let RunError::OutOfMemory { shard, tokens_per_pass, source } = &error else { panic!("{error}") };
        assert_eq!((shard, *tokens_per_pass), (&plan.shards[1].name, PASS / 2));
        assert!(source.is_out_of_memory());
        assert_eq!(events.iter().filter(|event| event.contains(" to ")).count(), 1, "{events:?}");
        let entries = |folder: &str| std::fs::read_dir(out.join(folder)).unwrap().count();
        assert_eq!(["data", "samples", "hidden", "state/commits", "tmp"].map(entries), [1, 1, 1, 1, 0]);
        assert!(call(PASS, &[]).collect(&out, &plan).unwrap().complete);
        assert_recorded_alike(&out, &whole);
    }
}

#[test]
fn a_text_longer_than_the_smaller_pass_is_a_pass_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let plan = four_shards(dir.path());
    let (whole, out) = (dir.path().join("whole"), dir.path().join("run"));
    call(PASS, &[]).collect(&whole, &plan).unwrap();
    // Passes of 20 tokens on an engine with room for 64, and later for 32: texts of 30 go alone before and after.
    let narrow = Call { tokens_per_pass: 20, ..call(PASS, &[3]) };
    assert!(narrow.collect(&out, &plan).unwrap().complete);
    assert_recorded_alike(&out, &whole);
    assert!(records(&out, &plan).iter().all(|record| record.execution.tokens_per_pass == 20));
}

#[test]
fn a_stop_while_memory_runs_out_drops_the_shard_and_tries_no_smaller_pass() {
    let dir = tempfile::tempdir().unwrap();
    let plan = four_shards(dir.path());
    let out = dir.path().join("run");
    let stop = Arc::new(AtomicBool::new(false));
    let mut call = Call { stop: Arc::clone(&stop), ..call(PASS, &[1]) };
    let second_layers = AtomicUsize::new(0);
    call.engine.before_layer = Some(Box::new(move |_, layer| {
        let seen = second_layers.fetch_add(usize::from(layer == 1), Ordering::Relaxed);
        // The layer in which memory runs out.
        stop.store(layer == 1 && seen == 1, Ordering::Relaxed);
    }));
    let mut events = Vec::new();
    let outcome = call.collect_and_tell(&out, &plan, &mut told(&mut events)).unwrap();
    assert!(outcome.interrupted);
    assert_eq!((outcome.written, outcome.committed), (1, 1));
    assert!(!events.iter().any(|event| event.contains(" to ")), "{events:?}");
    assert_eq!(std::fs::read_dir(out.join("tmp")).unwrap().count(), 0);
}

#[test]
fn a_crash_at_any_call_to_the_disk_around_a_shard_that_is_halved_loses_and_doubles_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let plan = four_shards(dir.path());
    let whole = dir.path().join("whole");
    // The shard that is halved and the one behind it.
    let two = |calls| Call { range: Some("0..2".parse().unwrap()), ..call(PASS, calls) };
    two(&[]).collect(&whole, &plan).unwrap();
    for at in 0.. {
        let out = dir.path().join("broken");
        let fs = FaultyFs::new(at, Fault::Crash);
        let first = Call { fs: &fs, ..two(&[1]) }.collect(&out, &plan);
        if fs.calls.load(Ordering::SeqCst) <= at {
            assert!(first.is_ok() && at > 50, "only {at} calls were tried");
            break;
        }
        assert_eq!(two(&[]).collect(&out, &plan).unwrap().committed, 2, "call {at}");
        assert_eq!(std::fs::read_dir(out.join("tmp")).unwrap().count(), 0, "call {at}: a leftover stays");
        assert_same(&out, &whole);
        std::fs::remove_dir_all(&out).unwrap();
    }
}

#[test]
fn records_and_summary_say_what_a_device_took_and_the_last_call_what_its_own_shards_took() {
    let dir = tempfile::tempdir().unwrap();
    let plan = four_shards(dir.path());
    let out = dir.path().join("run");
    let now = AtomicU64::new(0);
    // Each look at the clock takes a second.
    let process =
        || ProcessUsage { resident_bytes: 9, elapsed_us: now.fetch_add(1_000_000, Ordering::Relaxed) };
    let mut call = Call { process: Some(&process), ..call(PASS, &[1]) };
    call.engine.bytes_a_token = 10;
    let outcome = call.collect(&out, &plan).unwrap();
    let records = records(&out, &plan);
    for (index, (record, shard)) in records.iter().zip(&plan.shards).enumerate() {
        let usage = record.usage.unwrap();
        // The shard that was halved held a whole pass's memory before.
        let room = if index < 2 { PASS } else { PASS / 2 };
        assert_eq!((usage.device_bytes, usage.host_bytes, usage.resident_bytes), (10 * room as u64, 5, 9));
        assert_eq!((usage.passes_us, usage.waited_us), (1_000 * shard.tokens, 250 * shard.tokens));
        assert!(usage.elapsed_us >= 1_000_000);
    }
    let all = records.iter().filter_map(|record| record.usage).reduce(Usage::and);
    assert_eq!(outcome.usage, all);
    assert_eq!(all.and_then(|usage| usage.waiting()), Some(0.25));
    let summary: Summary = serde_json::from_slice(&std::fs::read(out.join("summary.json")).unwrap()).unwrap();
    assert_eq!(summary.usage, all);
    let again = Call::default().collect(&out, &plan).unwrap();
    assert_eq!((again.usage, again.halved), (None, outcome.halved));
}
