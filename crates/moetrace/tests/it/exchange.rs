//! `moetrace export` and `moetrace import`, one after the other.

use std::path::Path;

use serde_json::Value;

use crate::program::{ends, fails, json, moetrace, run, succeeds};

fn collect(dir: &Path, more: &[&str]) -> String {
    let out = dir.join("run").display().to_string();
    succeeds(&[&["collect", "--quiet", "--traces", "12", "--out", &out], more].concat());
    out
}

#[test]
fn a_run_goes_out_as_flame_and_comes_back_as_a_run_with_the_same_loads() {
    let dir = tempfile::tempdir().unwrap();
    let ours = collect(dir.path(), &[]);
    let path = |name: &str| dir.path().join(name).display().to_string();
    let text = succeeds(&["export", &ours, "--layout", "flame", "--out", &path("flame")]);
    assert!(text.starts_with("12 texts and ") && text.contains("tokens of 6 shards in 4 files"), "{text}");
    let back = path("back");
    let import = ["import", "--layout", "flame", &format!("all={}", path("flame")), "--out", &back];
    let (code, stderr) = fails(&import);
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("error[E-USAGE]") && stderr.contains("help: add --text-tokens"), "{stderr}");
    let more = ["--experts", "64", "--text-tokens", "512", "--model-name", "tiny", "--quiet"];
    succeeds(&[&import[..], &more].concat());
    assert!(succeeds(&["verify", &back]).ends_with("no fault found\n"));
    let metrics = |run: &str| -> Value {
        serde_json::from_str(&succeeds(&["metrics", "--json", "--include-bos", run])).unwrap()
    };
    let (before, after) = (metrics(&ours), metrics(&back));
    for layer in 0..3 {
        assert_eq!(before["layers"][layer]["loads"], after["layers"][layer]["loads"]);
        assert!(after["layers"][layer]["ties"].is_null() && before["layers"][layer]["ties"].is_u64());
    }
    let manifest = json(&dir.path().join("back/manifest.json"));
    assert_eq!(manifest["imported"]["layout"], "flame");
    assert_eq!(manifest["imported"]["not_recorded"], serde_json::json!(["margin", "gate_entropy"]));
    let text = succeeds(&["metrics", &back]);
    assert!(text.contains("gate (not recorded)") && text.contains("ties not recorded"), "{text}");
    let rows = succeeds(&["inspect", &back]);
    assert!(rows.contains("not recorded"), "{rows}");
    // What has no margins has no ties to be told apart.
    let (code, stderr) = fails(&["compare", &back, &back]);
    assert_eq!(code, 78, "{stderr}");
    assert!(stderr.contains("E-COMPARE") && stderr.contains("margins are not recorded"), "{stderr}");
}

#[test]
fn every_layout_is_written_into_a_new_folder_and_none_over_another() {
    let dir = tempfile::tempdir().unwrap();
    let ours = collect(dir.path(), &["--shards", "0..2"]);
    for layout in ["long", "jsonl", "sglang", "flame"] {
        let out = dir.path().join(layout).display().to_string();
        let output = run(&["export", &ours, "--layout", layout, "--out", &out, "--json"]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{layout}: {stderr}");
        assert_eq!(stderr, "note: 2 of 6 shards are committed; those were written\n");
        let written: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&written["written"], &written["samples"]), (&2.into(), &4.into()), "{layout}");
        let (code, stderr) = fails(&["export", &ours, "--layout", layout, "--out", &out]);
        assert_eq!(code, 73, "{stderr}");
        assert!(stderr.contains("error[E-EXISTS]") && stderr.contains("exists already"), "{stderr}");
    }
    let (code, stderr) = fails(&["export", dir.path().to_str().unwrap(), "--layout", "long", "--out", "x"]);
    assert_eq!(code, 66, "{stderr}");
}

#[test]
fn nothing_is_exported_into_the_run_itself() {
    let dir = tempfile::tempdir().unwrap();
    let ours = collect(dir.path(), &["--shards", "0..1"]);
    let run = Path::new(&ours);
    // By its own name, by a detour, and as seen from within.
    let inside = [
        run.join("export"),
        run.join("data/long"),
        run.join("new/folders/long"),
        dir.path().join("run/../run/export"),
    ];
    for out in inside {
        let (code, stderr) =
            fails(&["export", &ours, "--layout", "long", "--out", &out.display().to_string()]);
        assert_eq!(code, 2, "{stderr}");
        assert!(stderr.starts_with("error[E-USAGE]: ") && stderr.contains("is inside the run"), "{stderr}");
        assert!(!out.exists() && !out.with_extension("part").exists());
    }
    assert!(!run.join("new").exists());
    let here = ["export", ".", "--layout", "long", "--out", "export"];
    let (code, stderr) = ends(moetrace().current_dir(run).args(here));
    assert!(code == 2 && stderr.contains("export is inside the run ."), "{code}: {stderr}");
}

#[test]
fn foreign_files_that_are_wrong_are_named_and_leave_no_folder() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("expert_weights_1.txt"), "0\t1\t\t0.5\t0.25\n0\t9\t\t0.5\t0.25\n")
        .unwrap();
    let named = |more: &[&str]| {
        let args = ["import", "--layout", "esft", "law=.", "--experts-per-token", "2", "--out", "run"];
        ends(moetrace().current_dir(dir.path()).args(args).args(more))
    };
    let (code, stderr) = named(&["--experts", "8"]);
    assert_eq!(code, 65, "{stderr}");
    assert_eq!(
        stderr,
        "error[E-IMPORT]: ./expert_weights_1.txt, line 2: token 0: expert 9, expected 0 to 7\n  help: \
         docs/exchange.md says what each layout holds; nothing was written\n"
    );
    assert!(!dir.path().join("run").exists());
    let (code, stderr) = named(&[]);
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("--experts says it"), "{stderr}");
    let args = ["import", "--layout", "npy", "gone=gone.npy", "--experts", "8", "--out", "run"];
    let (code, stderr) = ends(moetrace().current_dir(dir.path()).args(args));
    assert_eq!(code, 66, "{stderr}");
    assert!(stderr.contains("error[E-IMPORT]: cannot read gone.npy"), "{stderr}");
}

#[test]
fn an_import_is_repaired_and_started_over_as_a_run_is() {
    let dir = tempfile::tempdir().unwrap();
    let scores = dir.path().join("expert_weights_1.txt");
    std::fs::write(&scores, "0\t1\t\t0.5\t0.25\n0\t2\t\t0.5\t0.25\n").unwrap();
    let import = |more: &[&str]| {
        let args = ["import", "--layout", "esft", "law=.", "--experts-per-token", "2", "--experts", "8"];
        moetrace().current_dir(dir.path()).args(args).args(["--out", "run"]).args(more).output().unwrap()
    };
    let first = import(&[]);
    assert!(first.status.success());
    let told = String::from_utf8(first.stderr).unwrap();
    assert!(!told.contains("model"), "there is none to load: {told}");
    let run = dir.path().join("run");
    let data = run.join("data/law-00000-of-00001.parquet");
    let whole = std::fs::read(&data).unwrap();
    std::fs::write(&data, [&whole[..whole.len() / 2], b"x", &whole[whole.len() / 2 + 1..]].concat()).unwrap();
    let (code, stderr) = fails(&["verify", run.to_str().unwrap()]);
    assert_eq!(code, 65, "{stderr}");
    assert!(stderr.contains("the same collect or import with --repair"), "{stderr}");
    assert!(import(&["--repair"]).status.success());
    assert_eq!(std::fs::read(&data).unwrap(), whole);

    std::fs::write(&scores, "0\t1\t\t0.5\t0.25\n").unwrap();
    assert_eq!(import(&[]).status.code(), Some(78));
    // Files that are refused move no run away.
    std::fs::write(&scores, "0\t9\t\t0.5\t0.25\n").unwrap();
    assert_eq!(import(&["--fresh"]).status.code(), Some(65));
    assert!(!dir.path().join("run.bak").exists() && run.is_dir());
    std::fs::write(&scores, "0\t1\t\t0.5\t0.25\n").unwrap();
    assert!(import(&["--fresh"]).status.success());
    assert!(dir.path().join("run.bak").is_dir());
    assert!(succeeds(&["verify", run.to_str().unwrap()]).ends_with("no fault found\n"));
    let again = import(&["--fresh"]);
    assert_eq!(again.status.code(), Some(73));
    assert!(String::from_utf8(again.stderr).unwrap().contains("E-BACKUP"));
}

#[test]
fn a_run_without_a_shard_is_not_exported() {
    let dir = tempfile::tempdir().unwrap();
    let ours = collect(dir.path(), &["--shards", "0..1"]);
    let commits = dir.path().join("run/state/commits");
    for entry in std::fs::read_dir(commits).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let out = dir.path().join("out").display().to_string();
    let (code, stderr) = fails(&["export", &ours, "--layout", "long", "--out", &out]);
    assert_eq!(code, 65, "{stderr}");
    assert!(stderr.contains("error[E-EMPTY]") && stderr.contains("none of its 6 shards"), "{stderr}");
    assert!(!Path::new(&out).exists());
}
