//! What is refused, and how it is named.

use moetrace_run::{RunError, RunFolder, ShardRange};

use serde_json::Value;

use crate::support::{Arithmetic, Call, content, plan};

#[test]
fn other_settings_are_refused_and_each_difference_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    Call::default().collect(&out, &plan(dir.path(), content())).unwrap();
    let mut changed = content();
    (changed.seed, changed.max_length) = (8, 12);
    let error = Call::default().collect(&out, &plan(dir.path(), changed)).unwrap_err();
    let RunError::OtherSettings { differences, .. } = &error else { panic!("{error}") };
    let named: Vec<String> = differences.iter().map(ToString::to_string).collect();
    assert_eq!(named, ["max_length 64 -> 12", "seed 7 -> 8"]);
}

#[test]
fn a_changed_source_is_refused_by_its_data_set() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    Call::default().collect(&out, &plan(dir.path(), content())).unwrap();
    let mut later = plan(dir.path(), content());
    later.corpus.datasets[1].files[0].blake3 = "0".repeat(64);
    let error = Call::default().collect(&out, &later).unwrap_err();
    let RunError::OtherSettings { differences, .. } = &error else { panic!("{error}") };
    assert_eq!(differences.len(), 1);
    assert_eq!(differences[0].name, "dataset beta");
}

#[test]
fn a_folder_of_others_is_not_written_into() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("theirs");
    std::fs::create_dir(&out).unwrap();
    std::fs::write(out.join("thesis.tex"), "x").unwrap();
    let error = Call::default().collect(&out, &plan(dir.path(), content())).unwrap_err();
    assert!(matches!(&error, RunError::ForeignFolder { found, .. } if found == "thesis.tex"), "{error}");
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), 1);
}

#[test]
fn shards_outside_the_run_are_refused_with_their_number() {
    let dir = tempfile::tempdir().unwrap();
    let range = Some(ShardRange { from: 2, to: 1000 });
    let plan = plan(dir.path(), content());
    let error = Call { range, ..Call::default() }.collect(&dir.path().join("run"), &plan).unwrap_err();
    assert!(matches!(error, RunError::ShardRange { to: 1000, shards, .. } if shards == plan.shards.len()));
}

#[test]
fn a_number_that_is_not_finite_is_named_by_sample_and_position_and_commits_nothing_of_its_shard() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(dir.path(), content());
    let out = dir.path().join("run");
    let mut engine = Arithmetic::new();
    // Row 4 of alpha holds ids 400 to 408; the third of them.
    engine.poison = Some(402);
    let error = Call { engine, ..Call::default() }.collect(&out, &plan).unwrap_err();
    let named = "layer 2: margin is NaN at alpha sample 4, position 2";
    assert_eq!(error.to_string(), named);
    let folder = RunFolder::new(&out);
    let manifest = folder.manifest().unwrap();
    for shard in &manifest.shards {
        let holds =
            shard.dataset == 0 && plan.corpus.datasets[0].samples[shard.range()].iter().any(|s| s.id.0 == 4);
        if holds {
            assert!(folder.commit(&shard.name).unwrap().is_none());
            assert!(!folder.shard_path("data", &shard.name).exists());
        }
    }
    assert_eq!(std::fs::read_dir(out.join("tmp")).unwrap().count(), 0);
    // The disk was fine, so the run continues with a sound engine.
    assert!(Call::default().collect(&out, &plan).unwrap().complete);
}

#[test]
fn a_loss_that_is_not_finite_is_named_by_sample_and_position() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(dir.path(), content());
    let mut engine = Arithmetic::new();
    engine.lossless = Some(402);
    let error = Call { engine, ..Call::default() }.collect(&dir.path().join("run"), &plan).unwrap_err();
    assert_eq!(error.to_string(), "the loss is inf at alpha sample 4, position 2");
}

#[test]
fn a_manifest_whose_shard_names_leave_the_folder_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    Call::default().collect(&out, &plan(dir.path(), content())).unwrap();
    let folder = RunFolder::new(&out);
    let text = std::fs::read_to_string(folder.manifest_path()).unwrap();
    let name = &folder.manifest().unwrap().shards[0].name;
    for evil in ["../../evil", "a/b", ".hidden"] {
        std::fs::write(folder.manifest_path(), text.replace(name.as_str(), evil)).unwrap();
        assert!(matches!(folder.manifest().unwrap_err(), RunError::Damaged { .. }), "{evil}");
    }
    for cut in [0, 1, text.len() / 2, text.len() - 3] {
        std::fs::write(folder.manifest_path(), &text[..cut]).unwrap();
        assert!(matches!(folder.manifest().unwrap_err(), RunError::Damaged { .. }), "{cut} bytes");
    }
}

/// A change to a manifest.
type Change = fn(&mut Value);

#[test]
fn a_manifest_that_is_not_what_began_the_run_is_damaged_and_never_believed() {
    let dir = tempfile::tempdir().unwrap();
    let (out, plan) = (dir.path().join("run"), plan(dir.path(), content()));
    Call::default().collect(&out, &plan).unwrap();
    let folder = RunFolder::new(&out);
    let sound: Value = serde_json::from_slice(&std::fs::read(folder.manifest_path()).unwrap()).unwrap();
    let changes: [(&str, Change); 8] = [
        ("fewer shards", |m| m["shards"].as_array_mut().unwrap().truncate(3)),
        ("another data set", |m| m["shards"][0]["dataset"] = 77.into()),
        ("a far sample", |m| m["shards"][1]["first"] = 1_000_000_000_000_u64.into()),
        ("more samples", |m| m["shards"][0]["samples"] = u64::MAX.into()),
        ("the same shard twice", |m| m["shards"][1]["name"] = m["shards"][0]["name"].clone()),
        ("two data sets of one name", |m| m["datasets"][1]["name"] = m["datasets"][0]["name"].clone()),
        ("no version", |m| m["version"] = 0.into()),
        ("another identity", |m| m["identity"]["seed"] = "8".into()),
    ];
    for (what, change) in changes {
        let mut changed = sound.clone();
        change(&mut changed);
        std::fs::write(folder.manifest_path(), changed.to_string()).unwrap();
        let is_damage = |error: RunError| matches!(error, RunError::Damaged { path, .. } if path == folder.manifest_path());
        assert!(is_damage(folder.manifest().unwrap_err()), "{what}");
        assert!(is_damage(Call::default().collect(&out, &plan).unwrap_err()), "{what}");
    }
    // One that agrees with itself, but is not cut as its settings say.
    let mut changed = sound.clone();
    let shards = changed["shards"].as_array_mut().unwrap();
    let second = shards.remove(1);
    for field in ["samples", "tokens"] {
        shards[0][field] = (shards[0][field].as_u64().unwrap() + second[field].as_u64().unwrap()).into();
    }
    std::fs::write(folder.manifest_path(), changed.to_string()).unwrap();
    assert!(folder.manifest().is_ok());
    let error = Call::default().collect(&out, &plan).unwrap_err();
    assert!(matches!(&error, RunError::Damaged { what, .. } if what.contains("shards")), "{error}");
}

#[test]
fn a_folder_that_lost_its_manifest_but_not_its_shards_is_no_empty_folder() {
    let dir = tempfile::tempdir().unwrap();
    let (out, plan) = (dir.path().join("run"), plan(dir.path(), content()));
    Call::default().collect(&out, &plan).unwrap();
    for name in ["manifest.json", "summary.json", "README.md", "tokens.parquet"] {
        std::fs::remove_file(out.join(name)).unwrap();
        if name != "manifest.json" && name != "tokens.parquet" {
            continue;
        }
        let error = Call::default().collect(&out, &plan).unwrap_err();
        assert!(
            matches!(&error, RunError::Damaged { path, .. } if path.ends_with("manifest.json")),
            "{error}"
        );
    }
    assert!(RunFolder::new(&out).set_aside(&dir.path().join("run.bak")).unwrap());
    assert_eq!(Call::default().collect(&out, &plan).unwrap().written, plan.shards.len());
}
