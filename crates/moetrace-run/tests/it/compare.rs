//! Two runs side by side: the same rows are compared however they were cut, and different ones are refused.

use std::path::{Path, PathBuf};

use moetrace_metrics::fidelity::FidelitySettings;
use moetrace_routing::{LayerIndex, RoutingGeometry, TokenId};
use moetrace_run::{
    Comparison, ContentSettings, Plan, RunError, RunFolder, ShardRange, TokenBasis, TokenDifference, Trust,
    compare,
};
use moetrace_trace::TraceColumns;

use crate::support::{Arithmetic, Call, content, plan};

fn collect(dir: &Path, name: &str, content: ContentSettings, call: Call<'_>) -> PathBuf {
    let out = dir.join(name);
    call.collect(&out, &plan(dir, content)).unwrap();
    out
}

fn compared(a: &Path, b: &Path) -> Result<Comparison, RunError> {
    compare(&RunFolder::new(a), &RunFolder::new(b), FidelitySettings::default(), Trust::Nothing)
}

fn cut(shard_tokens: usize) -> ContentSettings {
    ContentSettings { shard_tokens, ..content() }
}

fn only(from: usize, to: usize) -> Call<'static> {
    Call { range: Some(ShardRange { from, to }), ..Call::default() }
}

fn twisted() -> Call<'static> {
    let mut call = Call::default();
    call.engine.twist = Some(3);
    call
}

fn ids(plan: &Plan) -> Vec<u32> {
    let samples = plan.corpus.datasets.iter().flat_map(|d| &d.samples);
    samples.flat_map(|s| s.tokens.iter().map(|id| id.0)).collect()
}

#[test]
fn what_differs_is_counted_exactly_however_either_run_was_cut() {
    let dir = tempfile::tempdir().unwrap();
    let ids = ids(&plan(dir.path(), content()));
    let twists = ids.iter().filter(|id| **id % 3 == 0).count() as u64;
    let reference = collect(dir.path(), "a", cut(40), Call::default());
    let mut reports = Vec::new();
    for shard_tokens in [1, 7, 33, 40, 1000] {
        let other = collect(dir.path(), &shard_tokens.to_string(), cut(shard_tokens), twisted());
        let comparison = compared(&reference, &other).unwrap();
        assert_eq!((comparison.samples, comparison.tokens), (13, ids.len() as u64));
        assert_eq!(comparison.basis, TokenBasis::TokenIds);
        reports.push(comparison.fidelity);
    }
    assert!(reports.windows(2).all(|two| two[0] == two[1]));
    let report = &reports[0];
    assert_eq!(report.tokens, ids.len() as u64);
    let [first, second] = &report.layers[..] else { panic!("two layers") };
    assert_eq!((first.all.exact_set_rate, first.all.rank_1_agreement), (1.0, 1.0));
    assert_eq!((second.all.exact_sets, second.all.rank_1_agreement), (report.tokens - twists, 1.0));
    let expected = 1.0 - twists as f64 / 2.0 / report.tokens as f64;
    assert!((second.all.set_overlap - expected).abs() < 1e-15);
    assert_eq!(report.divergence.first_layer.iter().map(|f| f.tokens).collect::<Vec<_>>(), [0, twists]);
}

#[test]
fn a_run_against_itself_is_the_same_in_every_row() {
    let dir = tempfile::tempdir().unwrap();
    let run = collect(dir.path(), "a", content(), Call::default());
    let report = compared(&run, &run).unwrap().fidelity;
    assert_eq!((report.overall.all.exact_set_rate.min, report.divergence.differing), (1.0, 0));
}

#[test]
fn of_unfinished_runs_the_texts_that_both_have_are_compared_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let whole = collect(dir.path(), "whole", cut(1000), Call::default());
    let plan = plan(dir.path(), content());
    let last = plan.shards.len() - 1;
    for (name, from, to) in [("first", 0, 1), ("middle", 1, 3), ("last", last, last + 1)] {
        let part = collect(dir.path(), name, content(), only(from, to));
        let tokens: u64 = plan.shards[from..to].iter().map(|s| s.tokens).sum();
        for (a, b) in [(&whole, &part), (&part, &whole)] {
            let comparison = compared(a, b).unwrap();
            assert_eq!(comparison.tokens, tokens, "{name}");
            assert_eq!(comparison.fidelity.divergence.differing, 0, "{name}");
        }
        let comparison = compared(&whole, &part).unwrap();
        let (a, b) = (&comparison.reference, &comparison.other);
        assert_eq!((a.committed_tokens, b.committed_tokens), (a.tokens, tokens));
        assert_eq!((b.committed_shards, b.shards), (to - from, plan.shards.len()));
    }
    let first = dir.path().join("first");
    let error = compared(&first, &dir.path().join("last")).unwrap_err();
    assert!(matches!(error, RunError::NothingInCommon { .. }), "{error}");
}

#[test]
fn a_run_of_fewer_texts_is_compared_with_the_beginning_of_a_longer_one() {
    let dir = tempfile::tempdir().unwrap();
    let long = collect(dir.path(), "long", content(), Call::default());
    let few = ContentSettings { traces: 6, ..cut(20) };
    let short = collect(dir.path(), "short", few, twisted());
    let comparison = compared(&long, &short).unwrap();
    assert_eq!((comparison.samples, comparison.other.samples, comparison.reference.samples), (6, 6, 13));
    assert_eq!(comparison.tokens, comparison.other.tokens);
    let of: Vec<_> =
        comparison.datasets.iter().map(|d| (d.samples, d.reference_samples, d.other_samples)).collect();
    assert_eq!(of, [(3, 9, 3), (3, 4, 3)]);
}

#[test]
fn without_token_ids_the_hashes_of_the_texts_tell() {
    let dir = tempfile::tempdir().unwrap();
    let columns = TraceColumns { token_ids: false, hidden: true, ..TraceColumns::default() };
    let with = collect(dir.path(), "with", content(), Call::default());
    let without = collect(dir.path(), "without", ContentSettings { columns, ..cut(17) }, Call::default());
    for (a, b) in [(&with, &without), (&without, &with), (&without, &without)] {
        let comparison = compared(a, b).unwrap();
        assert_eq!((comparison.basis, comparison.samples), (TokenBasis::TextHashes, 13));
    }
    // Sample 4 of alpha begins with another id now, and no setting says so.
    for columns in [columns, TraceColumns { token_ids: true, ..columns }] {
        let mut changed = plan(dir.path(), ContentSettings { columns, ..content() });
        let sample = changed.corpus.datasets[0].samples.iter_mut().find(|s| s.id.0 == 4).unwrap();
        (sample.tokens[0], sample.text_hash) = (TokenId(999), [9; 16]);
        let out = dir.path().join(format!("changed-{}", columns.token_ids));
        Call::default().collect(&out, &changed).unwrap();
        let error = compared(&without, &out).unwrap_err();
        let RunError::OtherTokens { at, .. } = &error else { panic!("{error}") };
        assert!(matches!(**at, TokenDifference::Text { sample: 4, .. }), "{error}");
    }
    let error = compared(&with, &dir.path().join("changed-true")).unwrap_err();
    let expected = "data set alpha, sample 4, position 0: token id 400 and 999";
    assert!(error.to_string().ends_with(expected), "{error}");

    let path = without.join("manifest.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let other = text.replace("\"tokenizer\": null", "\"tokenizer\": {\"hash\": \"x\", \"bos_token_id\": 1}");
    assert_ne!(other, text);
    std::fs::write(&path, other).unwrap();
    let error = compared(&with, &without).unwrap_err();
    assert!(error.to_string().contains("the tokenizers differ"), "{error}");
}

#[test]
fn other_seeds_other_data_sets_and_other_routers_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let run = collect(dir.path(), "a", content(), Call::default());
    let seed = collect(dir.path(), "seed", ContentSettings { seed: 8, ..content() }, Call::default());
    let error = compared(&run, &seed).unwrap_err();
    assert!(error.to_string().ends_with("; the runs differ in seed 7 -> 8"), "{error}");
    assert!(
        matches!(&error, RunError::OtherTokens { at, .. } if matches!(**at, TokenDifference::Sample { .. }))
    );

    let length =
        collect(dir.path(), "length", ContentSettings { max_length: 20, ..content() }, Call::default());
    let error = compared(&run, &length).unwrap_err();
    assert!(error.to_string().contains("max_length 64 -> 20"), "{error}");
    assert!(error.to_string().contains("30 and 20 tokens"), "{error}");

    let mut fewer = plan(dir.path(), content());
    fewer.corpus.datasets.truncate(1);
    let fewer = Plan::new(content(), fewer.model, None, fewer.geometry, fewer.corpus);
    let out = dir.path().join("fewer");
    Call::default().collect(&out, &fewer).unwrap();
    for (a, b) in [(&run, &out), (&out, &run)] {
        let error = compared(a, b).unwrap_err();
        let expected = format!("data set beta is in {} only", run.display());
        assert!(error.to_string().contains(&expected), "{error}");
    }

    let shape = RoutingGeometry::new(9, 2, 3, vec![LayerIndex(1), LayerIndex(3)]).unwrap();
    let other = plan(dir.path(), content());
    let other = Plan::new(content(), other.model, None, shape.clone(), other.corpus);
    let out = dir.path().join("shape");
    let mut engine = Arithmetic::new();
    engine.geometry = shape;
    Call { engine, ..Call::default() }.collect(&out, &other).unwrap();
    let error = compared(&run, &out).unwrap_err();
    assert!(error.to_string().ends_with("experts 8 -> 9, routed layers 1 to 2 -> 1,3"), "{error}");
}

#[test]
fn damage_on_either_side_is_named_and_sizes_may_be_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let a = collect(dir.path(), "a", content(), Call::default());
    let b = collect(dir.path(), "b", cut(1000), Call::default());
    let path = std::fs::read_dir(b.join("samples")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.push(0);
    std::fs::write(&path, &bytes).unwrap();
    for (x, y) in [(&a, &b), (&b, &a)] {
        let error = compared(x, y).unwrap_err();
        assert!(matches!(&error, RunError::Size { path: p, .. } if *p == path), "{error}");
    }
    bytes.pop();
    bytes[5] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let error = compared(&a, &b).unwrap_err();
    assert!(matches!(&error, RunError::Hash { path: p, .. } if *p == path), "{error}");
    let (a, b) = (RunFolder::new(&a), RunFolder::new(&b));
    // A flipped bit inside a page that nobody decodes, or an error that names the file: never a panic.
    if let Err(error) = compare(&a, &b, FidelitySettings::default(), Trust::Sizes) {
        assert!(error.to_string().contains("sample"), "{error}");
    }
}

#[test]
fn a_manifest_that_cannot_be_true_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let run = collect(dir.path(), "a", content(), Call::default());
    let path = run.join("manifest.json");
    let whole = std::fs::read_to_string(&path).unwrap();
    let edits: [(&str, &str); 5] = [
        ("\"dataset\": 1", "\"dataset\": 7"),
        ("\"first\": 0", "\"first\": 3"),
        ("\"samples\": 1,\n      \"tokens\": 30", "\"samples\": 18446744073709551615,\n      \"tokens\": 30"),
        ("\"no_tokens\": \"false\"", "\"no_tokens\": \"true\""),
        ("\"name\": \"beta\"", "\"name\": \"gamma\""),
    ];
    for (from, to) in edits {
        assert!(whole.contains(from), "{from} is not in\n{whole}");
        std::fs::write(&path, whole.replace(from, to)).unwrap();
        let error = compared(&run, &run).unwrap_err();
        assert!(matches!(error, RunError::Damaged { .. }), "{to}: {error}");
    }
}
