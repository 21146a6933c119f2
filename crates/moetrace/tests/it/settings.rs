//! Default, file, environment, flag: the later wins, and each setting says where it came from.

use serde_json::Value;

use crate::program::{fails, moetrace, succeeds};

#[test]
fn a_setting_comes_from_the_flag_then_the_environment_then_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("run.toml");
    std::fs::write(&file, "seed = 1\nmax-length = 64\ntraces = 6\nnll = true\n").unwrap();
    let output = moetrace()
        .args(["plan", "--json", "--seed", "3", "--config", file.to_str().unwrap()])
        .arg("--out")
        .arg(dir.path().join("run"))
        .env("MOETRACE_SEED", "2")
        .env("MOETRACE_TRACES", "12")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    let setting = |name: &str| {
        let all = plan["settings"].as_array().unwrap();
        let found = all.iter().find(|s| s["name"] == name).unwrap();
        (found["value"].as_str().unwrap().to_owned(), found["source"].as_str().unwrap().to_owned())
    };
    assert_eq!(setting("seed"), ("3".into(), "flag".into()));
    assert_eq!(setting("traces"), ("12".into(), "environment MOETRACE_TRACES".into()));
    let (value, source) = setting("max-length");
    assert_eq!(value, "64");
    assert!(source.starts_with("file ") && source.ends_with("run.toml"), "{source}");
    assert_eq!(setting("nll").0, "true");
    assert_eq!(setting("min-chars"), ("50".into(), "default".into()));
}

#[test]
fn an_unknown_key_is_refused_with_those_that_are_known() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("run.toml");
    for (text, named) in [("sede = 1\n", "sede"), ("seed = [", "run.toml"), ("seed = 1.5\n", "seed")] {
        std::fs::write(&file, text).unwrap();
        let (code, stderr) = fails(&["plan", "--config", file.to_str().unwrap()]);
        assert_eq!(code, 78, "{stderr}");
        assert!(stderr.contains(named), "{stderr}");
    }
}

/// The value and the source of a setting in `plan --json`, or exit code and standard error.
fn setting(name: &str, args: &[&str], variables: &[(&str, &str)]) -> Result<(String, String), (i32, String)> {
    let args = [&["plan", "--json", "--traces", "6"], args].concat();
    let output = moetrace().args(args).envs(variables.iter().copied()).output().unwrap();
    if !output.status.success() {
        return Err((output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap()));
    }
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    let found = plan["settings"].as_array().unwrap().iter().find(|s| s["name"] == name).unwrap();
    Ok((found["value"].as_str().unwrap().into(), found["source"].as_str().unwrap().into()))
}

#[test]
fn of_two_settings_that_exclude_each_other_the_later_source_wins() {
    let dir = tempfile::tempdir().unwrap();
    let file = |text: &str| {
        let path = dir.path().join("rivals.toml");
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let tokens = |args: &[&str], variables: &[(&str, &str)]| setting("tokens-per-pass", args, variables);
    let batch = ("2048".to_owned(), "batch-size times max-length".to_owned());
    let environment = [("MOETRACE_TOKENS_PER_PASS", "64")];
    assert_eq!(tokens(&["--batch-size", "4"], &environment), Ok(batch.clone()));
    assert_eq!(tokens(&["--batch-size", "4"], &[]), Ok(batch.clone()));
    let flag = Ok(("64".into(), "flag".into()));
    assert_eq!(tokens(&["--tokens-per-pass", "64"], &[("MOETRACE_BATCH_SIZE", "4")]), flag);
    assert_eq!(tokens(&["--tokens-per-pass", "64", "--config", &file("batch-size = 4\n")], &[]), flag);
    assert_eq!(tokens(&["--batch-size", "4", "--config", &file("tokens-per-pass = 64\n")], &[]), Ok(batch));
    assert_eq!(
        setting("batch-size", &["--tokens-per-pass", "64"], &[("MOETRACE_BATCH_SIZE", "4")]),
        Ok(("automatic".into(), "default".into()))
    );
    let (code, stderr) = tokens(&["--batch-size", "4", "--tokens-per-pass", "64"], &[]).unwrap_err();
    assert!(code == 2 && stderr.contains("E-USAGE"), "{code}: {stderr}");
    let both = file("batch-size = 4\ntokens-per-pass = 64\n");
    let (code, stderr) = tokens(&["--config", &both], &[]).unwrap_err();
    assert!(code == 78 && stderr.contains("rivals.toml"), "{code}: {stderr}");
}

#[test]
fn switches_in_the_environment_take_every_usual_word_and_nothing_is_not_set() {
    let on = |value: &str| setting("nll", &[], &[("MOETRACE_NLL", value)]);
    for value in ["1", "true", "yes", "on"] {
        assert_eq!(on(value), Ok(("true".into(), "environment MOETRACE_NLL".into())), "{value}");
    }
    for value in ["0", "false", "no", "off"] {
        assert_eq!(on(value).unwrap().0, "false", "{value}");
    }
    assert_eq!(on(""), Ok(("false".into(), "default".into())));
    assert_eq!(setting("seed", &[], &[("MOETRACE_SEED", "")]), Ok(("0".into(), "default".into())));
    assert_eq!(on("perhaps").unwrap_err().0, 2);
}

#[test]
fn a_shard_size_that_the_run_was_begun_with_is_said_to_come_from_it() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run").display().to_string();
    succeeds(&["collect", "--quiet", "--traces", "6", "--shard-tokens", "300", "--out", &out]);
    let shards = |more: &[&str]| setting("shard-tokens", &[&["--out", &out], more].concat(), &[]).unwrap();
    assert_eq!(shards(&[]), ("300".into(), "manifest of the run".into()));
    assert_eq!(shards(&["--fresh"]), ("16384".into(), "default".into()));
}
