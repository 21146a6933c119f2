//! Whose folder it is: other settings, other processes, runs kept aside, runs that had hardly begun.

use std::fs::File;

use crate::program::{assert_same_tables, ends, json, moetrace, succeeds, tables, texts};

#[test]
fn other_settings_are_refused_by_name_and_those_that_change_no_byte_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let dataset = texts(dir.path());
    let out = dir.path().join("run").display().to_string();
    let base = ["collect", "--quiet", "--dataset", &dataset, "--out", &out];
    let with = |more: &[&str]| ends(moetrace().args(base).args(more));
    assert_eq!(with(&[]).0, 0);
    for (more, named) in [
        (&["--max-length", "64"][..], "max_length 512 -> 64"),
        (&["--seed", "7", "--traces", "9"], "seed 0 -> 7, traces 20000 -> 9"),
        (&["--nll"], "nll false -> true"),
        (&["--weights", "f32"], "weights half -> full"),
        (&["--precision", "f32"], "precision bf16 -> f32"),
        (&["--router-dtype", "f32"], "router_dtype model -> f32"),
        (&["--shard-tokens", "999"], "shard_tokens 16384 -> 999"),
        (&["--no-tokens"], "no_tokens false -> true"),
        (&["--hidden", "2"], "hidden 0 -> 2"),
        (&["--router-logits"], "router_logits false -> true"),
        (&["--min-chars", "60"], "min_chars 50 -> 60"),
    ] {
        let (code, stderr) = with(more);
        assert_eq!(code, 78, "{more:?}: {stderr}");
        assert!(stderr.contains("E-MANIFEST") && stderr.contains(named), "{more:?}: {stderr}");
        assert!(stderr.contains("--fresh"), "{stderr}");
    }
    for more in
        [&["--threads", "1"][..], &["--tokens-per-pass", "64"], &["--batch-size", "2"], &["--no-mmap"]]
    {
        let (code, stderr) = with(more);
        assert_eq!(code, 0, "{more:?}: {stderr}");
    }
}

#[test]
fn a_changed_text_or_another_data_set_is_another_run() {
    let dir = tempfile::tempdir().unwrap();
    let dataset = texts(dir.path());
    let out = dir.path().join("run").display().to_string();
    let with =
        |dataset: &str| ends(moetrace().args(["collect", "--quiet", "--out", &out, "--dataset", dataset]));
    assert_eq!(with(&dataset).0, 0);
    let (code, stderr) = with(&dataset.replace("river=", "brook="));
    assert_eq!(code, 78, "{stderr}");
    assert!(stderr.contains("dataset river no. 1 column text") && stderr.contains("-> absent"), "{stderr}");
    let path = dir.path().join("river.jsonl");
    let more = std::fs::read_to_string(&path).unwrap() + "\n{\"text\": \"one more\"}\n";
    std::fs::write(&path, more).unwrap();
    let (code, stderr) = with(&dataset);
    assert_eq!(code, 78, "{stderr}");
    assert!(stderr.contains("dataset river"), "{stderr}");
}

#[test]
fn fresh_keeps_the_old_run_once_and_names_the_backup_that_is_in_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let dataset = texts(dir.path());
    let out = dir.path().join("run");
    let with = |more: &[&str]| {
        ends(moetrace().args(["collect", "--quiet", "--dataset", &dataset, "--out"]).arg(&out).args(more))
    };
    assert_eq!(with(&["--fresh"]).0, 0, "there is nothing to keep yet");
    assert_eq!(with(&["--fresh", "--seed", "5"]).0, 0);
    let seed = |run: &str| json(&dir.path().join(run).join("manifest.json"))["identity"]["seed"].clone();
    assert_eq!((seed("run"), seed("run.bak")), ("5".into(), "0".into()));
    let (code, stderr) = with(&["--fresh"]);
    assert_eq!(code, 73, "{stderr}");
    assert!(stderr.contains("run.bak exists already") && stderr.contains("move or remove it"), "{stderr}");
    assert_eq!((seed("run"), seed("run.bak")), ("5".into(), "0".into()));
}

#[test]
fn a_run_killed_before_its_manifest_is_begun_again_with_fresh_or_without() {
    let dir = tempfile::tempdir().unwrap();
    let dataset = texts(dir.path());
    for more in [&[][..], &["--fresh"]] {
        let out = dir.path().join(format!("run-{}", more.len()));
        for folder in ["data", "samples", "tmp"] {
            std::fs::create_dir_all(out.join(folder)).unwrap();
        }
        let args = ["collect", "--quiet", "--dataset", &dataset, "--out"];
        let (code, stderr) = ends(moetrace().args(args).arg(&out).args(more));
        assert_eq!(code, 0, "{stderr}");
    }
}

#[test]
fn a_shard_that_another_process_writes_is_left_to_it_and_the_rest_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let args = ["collect", "--traces", "6", "--out", out.to_str().unwrap()];
    succeeds(&[&args[..], &["--quiet", "--shards", "0..1"]].concat());
    let lock = File::create(out.join("state/locks/verse-00000-of-00001.lock")).unwrap();
    lock.try_lock().unwrap();
    let (code, stderr) = ends(moetrace().args(args));
    assert_eq!(code, 75, "{stderr}");
    assert!(stderr.contains("verse-00000-of-00001: being written by another process"), "{stderr}");
    assert!(stderr.contains("E-LOCKED") && stderr.contains("run the same command again"), "{stderr}");
    let status = succeeds(&["status", out.to_str().unwrap()]);
    assert!(status.contains("5 of 6 shards committed") && status.contains("being written"), "{status}");
    drop(lock);
    let (code, stderr) = ends(moetrace().args(args));
    assert_eq!(code, 0, "{stderr}");
}

#[test]
fn two_processes_share_a_run_without_a_row_twice() {
    let dir = tempfile::tempdir().unwrap();
    let args = |name: &str| {
        let out = dir.path().join(name).display().to_string();
        ["collect", "--quiet", "--traces", "24", "--shard-tokens", "512", "--threads", "1", "--out", &out]
            .map(str::to_owned)
    };
    assert!(moetrace().args(args("whole")).status().unwrap().success());
    let both: Vec<_> = (0..2).map(|_| moetrace().args(args("run")).spawn().unwrap()).collect();
    let codes: Vec<i32> = both.into_iter().map(|mut child| child.wait().unwrap().code().unwrap()).collect();
    assert!(codes.iter().all(|code| [0, 75].contains(code)), "{codes:?}");
    // Whoever ends last concludes the run; no third call is needed.
    assert!(codes.contains(&0), "{codes:?}");
    for name in ["summary.json", "README.md", "tokens.parquet"] {
        assert!(dir.path().join("run").join(name).exists(), "{name} is missing");
    }
    assert_same_tables(&dir.path().join("run"), &dir.path().join("whole"));
}

#[test]
fn a_damaged_cache_is_unpacked_again() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    let plan = || ends(moetrace().args(["plan", "--quiet", "--traces", "6"]).env("MOETRACE_CACHE", &cache));
    assert_eq!(plan().0, 0);
    let unpacked = std::fs::read_dir(cache.join("embedded")).unwrap().next().unwrap().unwrap().path();
    let weights = unpacked.join("model/model.safetensors");
    let whole = std::fs::metadata(&weights).unwrap().len();
    File::options().write(true).open(&weights).unwrap().set_len(100).unwrap();
    assert_eq!(plan().0, 0);
    assert_eq!(std::fs::metadata(&weights).unwrap().len(), whole);
    assert_eq!(std::fs::read_dir(cache.join("embedded")).unwrap().count(), 1, "no leftover stays");
    // Damage that keeps the length, as of a disk that lost a block.
    let sound = std::fs::read(&weights).unwrap();
    let mut damaged = sound.clone();
    damaged[whole as usize / 2..][..4096].fill(0);
    std::fs::write(&weights, damaged).unwrap();
    assert_eq!(plan().0, 0);
    assert!(std::fs::read(&weights).unwrap() == sound, "the damage stays");
}

#[test]
fn fresh_takes_no_run_from_a_process_that_is_at_work_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let dataset = texts(dir.path());
    let out = dir.path().join("run");
    let with = |more: &[&str]| {
        ends(moetrace().args(["collect", "--quiet", "--dataset", &dataset, "--out"]).arg(&out).args(more))
    };
    assert_eq!(with(&[]).0, 0);
    let lock = File::open(out.join("state/run.lock")).unwrap();
    lock.try_lock_shared().unwrap();
    let (code, stderr) = with(&["--fresh"]);
    assert_eq!(code, 75, "{stderr}");
    assert!(stderr.contains("E-LOCKED") && stderr.contains("run the same command again"), "{stderr}");
    assert!(out.join("manifest.json").exists() && !dir.path().join("run.bak").exists());
    drop(lock);
    assert_eq!(with(&["--fresh"]).0, 0);
    assert!(dir.path().join("run.bak/manifest.json").exists());
}

#[test]
fn shards_without_their_manifest_are_neither_adopted_nor_called_foreign() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let with = |more: &[&str]| {
        let args = ["collect", "--quiet", "--traces", "6", "--seed", "1", "--out"];
        ends(moetrace().args(args).arg(&out).args(more))
    };
    succeeds(&["collect", "--quiet", "--traces", "6", "--out", out.to_str().unwrap()]);
    let before = tables(&out);
    // First as a crash leaves it, with all derived files; then without them, as a hand would.
    for gone in [&["manifest.json"][..], &["summary.json", "README.md", "tokens.parquet"]] {
        for name in gone {
            std::fs::remove_file(out.join(name)).unwrap();
        }
        for more in [&[][..], &["--repair"]] {
            let (code, stderr) = with(more);
            assert_eq!(code, 65, "{stderr}");
            assert!(stderr.contains("manifest.json is damaged") && stderr.contains("--fresh"), "{stderr}");
        }
    }
    assert_eq!(with(&["--fresh"]).0, 0);
    let kept = tables(&dir.path().join("run.bak"));
    assert!(kept.iter().all(|(name, bytes)| before[name] == *bytes), "what was set aside changed");
    let hash = json(&out.join("manifest.json"))["plan_hash"].clone();
    for entry in std::fs::read_dir(out.join("state/commits")).unwrap() {
        assert_eq!(json(&entry.unwrap().path())["plan_hash"], hash);
    }
}
