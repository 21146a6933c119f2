//! `moetrace verify` on runs of the real program.

use std::path::Path;

use serde_json::Value;

use crate::program::{fails, moetrace, run, succeeds};

fn collect(dir: &Path, more: &[&str]) -> String {
    let out = dir.join("run").display().to_string();
    succeeds(&[&["collect", "--quiet", "--traces", "12", "--out", &out], more].concat());
    out
}

#[test]
fn every_kind_of_column_of_a_real_run_is_sound() {
    for more in [
        &["--router-logits", "--nll", "--hidden", "4", "--precision", "bf16"][..],
        &["--no-tokens", "--weights", "f32", "--precision", "f32"],
        &["--precision", "nf4", "--router-logits", "--router-dtype", "f32"],
    ] {
        let dir = tempfile::tempdir().unwrap();
        let out = collect(dir.path(), more);
        let found = run(&["verify", "--json", &out]);
        assert!(found.status.success(), "{more:?}: {}", String::from_utf8_lossy(&found.stdout));
        let found: Value = serde_json::from_slice(&found.stdout).unwrap();
        assert_eq!(
            (&found["sound"], &found["verification"]["faults"]),
            (&true.into(), &Value::Array(vec![]))
        );
        assert_eq!(found["verification"]["committed"], found["verification"]["shards"]);
    }
}

/// In bf16 three rows of these texts have two experts of one score and different logits, one of which is chosen.
#[test]
fn a_choice_that_rounding_made_is_sound() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run").display().to_string();
    succeeds(&["collect", "--quiet", "--traces", "48", "--router-logits", "--out", &out]);
    assert!(succeeds(&["verify", &out]).ends_with("\nno fault found\n"));
}

#[test]
fn a_fault_is_told_with_its_place_and_ends_with_65() {
    let dir = tempfile::tempdir().unwrap();
    collect(dir.path(), &[]);
    let verify = |more: &[&str]| {
        moetrace().current_dir(dir.path()).args([&["verify"], more, &["run"]].concat()).output().unwrap()
    };
    let sound = verify(&[]);
    let text = String::from_utf8(sound.stdout).unwrap();
    assert!(text.contains("6 of 6 shards committed") && text.ends_with("\nno fault found\n"), "{text}");
    assert!(sound.status.success() && sound.stderr.is_empty());

    let record = dir.path().join("run/state/commits/code-00000-of-00001.json");
    let mut value: Value = serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
    value["input_hash"] = "00".into();
    value["files"][1]["bytes"] = 7.into();
    std::fs::write(&record, value.to_string()).unwrap();
    let faulty = verify(&[]);
    let (text, stderr) =
        (String::from_utf8(faulty.stdout).unwrap(), String::from_utf8(faulty.stderr).unwrap());
    let bytes = dir.path().join("run/samples/code-00000-of-00001.parquet").metadata().unwrap().len();
    let found = text.lines().skip(1).collect::<Vec<_>>().join("\n");
    let (found, hash) = found.split_once("hash to ").unwrap();
    assert_eq!(
        found,
        format!(
            "
1 x size
  first: samples/code-00000-of-00001.parquet
  it holds {bytes} bytes, 7 were committed

1 x tokens
  first: data/code-00000-of-00001.parquet
  texts and token ids "
        )
    );
    assert!(hash.ends_with(", the model was given 00"), "{hash}");
    assert_eq!(faulty.status.code(), Some(65));
    assert_eq!(
        stderr,
        format!(
            "error[E-FAULTY]: run is faulty: samples/code-00000-of-00001.parquet: it holds {bytes} bytes, 7 were \
             committed; and one more kind of fault\n  help: docs/messages.md says what each kind means; the same \
             collect or import with --repair does damaged shards again\n"
        )
    );
    let json = verify(&["--json"]);
    assert_eq!(json.status.code(), Some(65));
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    let fault = &json["verification"]["faults"][0];
    assert_eq!((&fault["kind"], &fault["count"]), (&"size".into(), &1.into()));
    assert_eq!(fault["first"]["file"], "samples/code-00000-of-00001.parquet");
}

#[test]
fn what_no_repair_mends_is_told_how_to_be_mended() {
    let dir = tempfile::tempdir().unwrap();
    let out = collect(dir.path(), &[]);
    let run = dir.path().join("run");
    let help = || {
        let (code, stderr) = fails(&["verify", &out]);
        assert_eq!(code, 65, "{stderr}");
        stderr.split_once("means; ").unwrap().1.trim_end().to_owned()
    };
    let stray = run.join("data/notes.parquet");
    std::fs::write(&stray, "").unwrap();
    assert_eq!(help(), "move the file out of the run folder");
    std::fs::remove_file(&stray).unwrap();

    std::fs::write(run.join("summary.json"), "[]").unwrap();
    assert_eq!(
        help(),
        "remove summary.json and tokens.parquet; the same collect or import writes them again"
    );
    std::fs::remove_file(run.join("summary.json")).unwrap();
    std::fs::remove_file(run.join("tokens.parquet")).unwrap();
    collect(dir.path(), &[]);
    assert!(run.join("summary.json").exists() && run.join("tokens.parquet").exists());

    // A finished run does not lose a shard in silence.
    std::fs::remove_file(run.join("state/commits/code-00000-of-00001.json")).unwrap();
    assert_eq!(help(), "the same collect or import with --repair does damaged shards again");
    collect(dir.path(), &[]);
    assert!(succeeds(&["verify", &out]).ends_with("\nno fault found\n"));
}

#[test]
fn a_run_under_way_is_said_to_be_and_what_is_no_run_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let out = collect(dir.path(), &["--shards", "0..2"]);
    let output = run(&["verify", &out]);
    assert!(output.status.success());
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(stderr, "note: 4 of 6 shards are not committed; the run is not finished\n");
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    for none in [dir.path(), &file] {
        let (code, stderr) = fails(&["verify", none.to_str().unwrap()]);
        assert_eq!(code, 66, "{stderr}");
        assert!(stderr.contains("E-NORUN"), "{stderr}");
    }
}

#[test]
fn every_kind_of_fault_is_explained() {
    let messages = include_str!("../../../../docs/messages.md");
    for kind in moetrace_run::FaultKind::ALL {
        assert!(messages.contains(&format!("| `{kind}` |")), "docs/messages.md lacks {kind}");
    }
}
