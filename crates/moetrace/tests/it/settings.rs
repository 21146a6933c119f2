//! Default, file, environment, flag: the later wins, and each setting says where it came from.

use serde_json::Value;

use crate::program::{fails, moetrace};

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
