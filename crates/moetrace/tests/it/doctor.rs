//! What doctor says of this machine, with the GPUs hidden, and of a hub on loopback.

use std::process::Command;
use std::time::{Duration, Instant};

use loopback_hub::Fault;
use serde_json::Value;

use crate::hub::{Bench, fixture};

const LINES: [&str; 13] = [
    "gpu",
    "driver",
    "nvrtc",
    "cublas",
    "processor",
    "memory",
    "cache",
    "hub-cache",
    "out",
    "hub",
    "login",
    "model",
    "texts",
];

/// The program on a machine whose GPUs are hidden, with nothing said about the device.
fn doctor(bench: &Bench, args: &[&str]) -> Command {
    let mut command = bench.moetrace();
    command.env_remove("MOETRACE_DEVICE").env("CUDA_VISIBLE_DEVICES", "").arg("doctor").args(args);
    command
}

/// Exit code and what was printed for machines.
fn examined(command: &mut Command) -> (i32, Value) {
    let output = command.arg("--json").output().unwrap();
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(!out.contains("CANARY") && !err.contains("CANARY"), "{out}{err}");
    let code = output.status.code().unwrap();
    let value: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(value["ok"] == true, code == 0, "{value:#}");
    assert_eq!(code == 1, err.contains("error[E-DOCTOR]"), "{err}");
    (code, value)
}

/// State and words of a line: what was found, and what to do.
fn line(value: &Value, id: &str) -> (String, String, String) {
    let checks = value["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["id"] == id).unwrap();
    let text = |key: &str| check[key].as_str().unwrap_or_default().to_owned();
    (text("state"), text("found"), text("fix"))
}

#[test]
fn a_machine_without_a_gpu_is_well_and_every_line_that_is_not_ok_says_what_to_do() {
    let bench = Bench::new();
    let (code, value) = examined(&mut doctor(&bench, &[]));
    assert_eq!(code, 0, "{value:#}");
    let checks = value["checks"].as_array().unwrap();
    let ids: Vec<&str> = checks.iter().map(|check| check["id"].as_str().unwrap()).collect();
    assert_eq!(ids, LINES);
    for check in checks {
        let keys: Vec<&str> = check.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["id", "state", "found", "needs", "fix"]);
        let is_ok = check["state"] == "ok";
        assert!(is_ok || (check["state"] == "note" && check["fix"].is_string()), "{check:#}");
    }
    let (state, found, _) = line(&value, "gpu");
    assert!(state == "note" && found.contains("the processor computes"), "{found}");
    assert_eq!(line(&value, "model").0, "ok");
    assert!(line(&value, "model").1.contains("moetrace-tiny in bf16 on the processor"), "{value:#}");
    let text = String::from_utf8(doctor(&bench, &[]).output().unwrap().stdout).unwrap();
    for id in LINES {
        assert!(text.contains(&format!("  {id} ")), "{id} is not in\n{text}");
    }
    assert!(text.contains("11.8 is not enough") || text.contains("ok     driver"), "{text}");
    assert!(text.ends_with("nothing that is needed is missing\n"), "{text}");
    // Nothing stays of it but what comes with the program, which has a cache of its own.
    assert!(!bench.cache().exists() && !bench.dir.path().join("runs").exists());
}

#[test]
fn a_gpu_that_was_asked_for_and_is_not_here_fails_with_what_brings_it() {
    let bench = Bench::new();
    let (code, value) = examined(&mut doctor(&bench, &["--device", "cuda"]));
    assert_eq!(code, 1);
    let (state, found, fix) = line(&value, "gpu");
    assert!(
        state == "fails" && found.contains("none can be used") && fix.contains("--device cpu"),
        "{found}"
    );
    assert_eq!(line(&value, "model").0, "fails");
    let (state, found, _) = line(&value, "gpu");
    assert!(state == "fails" && !found.contains('\n'), "{found}");
    let (code, value) = examined(&mut doctor(&bench, &["--device", "cpu"]));
    assert_eq!((code, line(&value, "driver").0.as_str()), (0, "ok"));
}

#[test]
fn a_library_that_is_missing_or_broken_is_named_with_what_brings_it() {
    let bench = Bench::new();
    let toolkit = bench.dir.path().join("toolkit");
    std::fs::create_dir_all(toolkit.join("lib64")).unwrap();
    std::fs::write(toolkit.join("lib64/libnvrtc.so.13"), "no library").unwrap();
    let (code, value) = examined(doctor(&bench, &["--device", "cuda"]).env("CUDA_HOME", &toolkit));
    let (state, found, fix) = line(&value, "nvrtc");
    assert_eq!((code, state.as_str()), (1, "fails"));
    assert!(
        found.contains("libnvrtc.so.13 cannot be loaded") && fix.contains("pip install"),
        "{found} {fix}"
    );
}

#[test]
fn a_login_is_good_refused_missing_or_not_asked_for() {
    let bench = Bench::new();
    let with = |token: Option<&str>, more: &[&str]| {
        let mut command = doctor(&bench, more);
        if let Some(token) = token {
            command.env("HF_TOKEN", token);
        }
        let (code, value) = examined(&mut command);
        (code, line(&value, "login"), line(&value, "hub"))
    };
    let (code, (state, found, _), hub) = with(Some("hf_CANARY_0123"), &[]);
    assert_eq!((code, state.as_str(), hub.0.as_str()), (0, "ok", "ok"));
    assert_eq!(found, "somebody (token from HF_TOKEN, not shown)");
    let (code, (state, found, fix), hub) = with(Some("CANARY_of_nobody"), &[]);
    assert_eq!((code, state.as_str(), hub.0.as_str()), (1, "fails", "ok"));
    assert!(found.contains("HF_TOKEN") && fix.contains("make a new token"), "{found} {fix}");
    let (code, (state, found, _), _) = with(Some("hf_CANARY with blanks"), &[]);
    assert_eq!((code, state.as_str()), (1, "fails"));
    assert!(found.contains("HF_TOKEN"), "{found}");
    let (code, (state, found, fix), _) = with(None, &[]);
    assert_eq!((code, state.as_str()), (0, "note"));
    assert!(found.contains("nobody") && fix.contains("hf auth login"), "{found} {fix}");
    bench.server.forget();
    let (code, (state, found, _), hub) = with(Some("hf_CANARY_0123"), &["--offline"]);
    assert_eq!((code, state.as_str()), (0, "note"));
    assert!(found.contains("not asked") && hub.1.contains("--offline") && bench.server.seen().is_empty());
    let (_, value) = examined(doctor(&bench, &[]).env("HF_HUB_OFFLINE", "1"));
    assert!(line(&value, "hub").2.contains("unset HF_HUB_OFFLINE"), "{value:#}");
    // A file that cannot be read is no login that is missing.
    std::fs::create_dir_all(bench.dir.path().join("home/token")).unwrap();
    let (code, (state, found, fix), _) = with(None, &[]);
    assert_eq!((code, state.as_str()), (1, "fails"), "{found}");
    assert!(found.contains("home/token") && fix.contains("hf auth login"), "{found} {fix}");
    std::fs::remove_dir(bench.dir.path().join("home/token")).unwrap();
    #[cfg(unix)]
    {
        let (code, value) = examined(doctor(&bench, &[]).env("HF_TOKEN_PATH", "/dev/zero"));
        assert_eq!((code, line(&value, "login").0.as_str()), (1, "fails"), "{value:#}");
    }
    std::fs::write(bench.dir.path().join("home/token"), b"\xff\xfe CANARY").unwrap();
    let (code, (state, found, _), _) = with(None, &[]);
    assert_eq!((code, state.as_str()), (1, "fails"), "{found}");
    // A file of a login is as good, and is named.
    std::fs::create_dir_all(bench.dir.path().join("home")).unwrap();
    std::fs::write(bench.dir.path().join("home/token"), "hf_CANARY_in_a_file\n").unwrap();
    assert!(with(None, &[]).1.1.contains("home/token"));
}

#[test]
fn a_hub_that_does_not_answer_is_waited_for_once_and_matters_where_it_is_needed() {
    let bench = Bench::new();
    let nobody = |args: &[&str]| examined(doctor(&bench, args).env("HF_ENDPOINT", "http://127.0.0.1:9"));
    let (code, value) = nobody(&[]);
    assert_eq!((code, line(&value, "hub").0.as_str()), (0, "note"), "{value:#}");
    let (code, value) = nobody(&["--model", "tiny/moe"]);
    assert_eq!(
        (code, line(&value, "hub").0.as_str(), line(&value, "model").0.as_str()),
        (1, "fails", "fails")
    );
    assert!(line(&value, "model").2.contains("connection"), "{value:#}");
    let (code, value) = examined(doctor(&bench, &[]).env("HF_ENDPOINT", "huggingface.co"));
    assert_eq!((code, line(&value, "hub").0.as_str()), (1, "fails"));
    assert!(line(&value, "hub").2.contains("HF_ENDPOINT"));
    bench.server.fault("/api/", 1, Fault::Late(Duration::from_secs(30)));
    let begun = Instant::now();
    let (code, value) = examined(&mut doctor(&bench, &["--traces", "6"]));
    assert_eq!((code, line(&value, "hub").0.as_str()), (0, "note"), "{value:#}");
    assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
}

#[test]
fn folders_that_cannot_be_written_are_named_with_the_variable_that_moves_them() {
    let bench = Bench::new();
    let file = bench.dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let with = |variable: &str, args: &[&str]| examined(doctor(&bench, args).env(variable, &file));
    let (code, value) = with("HF_HUB_CACHE", &[]);
    assert_eq!((code, line(&value, "hub-cache").0.as_str()), (0, "note"), "{value:#}");
    let (code, value) = with("HF_HUB_CACHE", &["--model", "tiny/moe"]);
    let (state, found, fix) = line(&value, "hub-cache");
    assert_eq!((code, state.as_str()), (1, "fails"));
    assert!(found.contains("cannot be written") && fix.contains("HF_HUB_CACHE"), "{found} {fix}");
    let (code, value) = with("MOETRACE_CACHE", &[]);
    assert_eq!((code, line(&value, "cache").0.as_str()), (1, "fails"));
    assert!(line(&value, "cache").2.contains("MOETRACE_CACHE"));
    let out = file.join("run").display().to_string();
    let (code, value) = examined(&mut doctor(&bench, &["--out", &out]));
    let (state, found, fix) = line(&value, "out");
    assert_eq!((code, state.as_str()), (1, "fails"), "{value:#}");
    assert!(found.contains("cannot be written") && fix.contains("--out"), "{found} {fix}");
    // What lies in a folder that is no run's is not written over.
    let out = bench.dir.path().display().to_string();
    let (code, value) = examined(&mut doctor(&bench, &["--out", &out]));
    let (state, found, fix) = line(&value, "out");
    assert_eq!((code, state.as_str()), (1, "fails"), "{value:#}");
    assert!(found.contains("no run of moetrace") && fix.contains("--out"), "{found} {fix}");
    // Nor is a run of other settings gone on with.
    let run = bench.dir.path().join("run").display().to_string();
    let begun = ["--traces", "6", "--out", &run];
    let (code, stderr) = bench.ends(&[&["collect", "--quiet", "--device", "cpu"], &begun[..]].concat());
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(examined(&mut doctor(&bench, &begun)).0, 0);
    let (code, value) = examined(&mut doctor(&bench, &["--traces", "7", "--out", &run]));
    let (state, found, _) = line(&value, "out");
    assert_eq!((code, state.as_str(), found.contains("traces 6 -> 7")), (1, "fails", true), "{found}");
    assert_eq!(examined(&mut doctor(&bench, &["--traces", "7", "--out", &run, "--fresh"])).0, 0);
    // Without any home the Hub has no cache, which is needed for what is of the Hub.
    let homeless = |args: &[&str]| {
        let mut command = doctor(&bench, args);
        for name in ["HOME", "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE"] {
            command.env_remove(name);
        }
        examined(command.env("MOETRACE_CACHE", bench.dir.path().join("own")))
    };
    let (code, value) = homeless(&[]);
    assert_eq!((code, line(&value, "hub").0.as_str()), (0, "note"), "{value:#}");
    let (code, value) = homeless(&["--model", "tiny/moe"]);
    assert_eq!((code, line(&value, "hub").0.as_str()), (1, "fails"), "{value:#}");
}

#[test]
fn a_model_without_a_tokenizer_takes_token_ids_alone() {
    let bench = Bench::new();
    let model = bench.dir.path().join("mute");
    std::fs::create_dir(&model).unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::write(model.join(name), fixture(&format!("model/{name}"))).unwrap();
    }
    let ids = r#"{"input_ids": [1, 2, 3, 4, 5, 6, 7, 8]}"#;
    std::fs::write(bench.dir.path().join("ids.jsonl"), format!("{ids}\n")).unwrap();
    let (code, value) = examined(&mut doctor(&bench, &["--model", "mute"]));
    assert_eq!((code, line(&value, "texts").0.as_str()), (1, "fails"), "the texts of moetrace are words");
    let (code, value) = examined(&mut doctor(&bench, &["--model", "mute", "--dataset", "ids.jsonl"]));
    let (state, found, fix) = line(&value, "model");
    assert_eq!((code, state.as_str()), (0, "note"), "{value:#}");
    assert!(found.contains("no tokenizer.json") && fix.contains("input_ids"), "{found} {fix}");
}

#[test]
fn a_model_of_the_hub_fits_or_does_not_before_its_weights_are_here() {
    let bench = Bench::new();
    let (code, value) = examined(&mut doctor(&bench, &["--model", "tiny/moe"]));
    assert_eq!(code, 0, "{value:#}");
    let (_, found, _) = line(&value, "model");
    assert!(found.contains("tiny/moe in bf16 on the processor fits; 11.8 MB to download"), "{found}");
    assert!(
        line(&value, "hub-cache").0 == "ok"
            && !bench.server.seen().iter().any(|s| s.path.starts_with("/cdn/"))
    );
    let gpu = ["--model", "tiny/moe", "--gpu", "rtx3090"];
    let (code, value) = examined(&mut doctor(&bench, &gpu));
    let (_, found, _) = line(&value, "model");
    assert!(
        code == 0 && found.contains("fits on a GPU rtx3090") && found.contains("preset rtx3090"),
        "{found}"
    );
    let (code, value) = examined(&mut doctor(&bench, &[&gpu[..], &["--max-memory", "500MB"]].concat()));
    let (state, found, fix) = line(&value, "model");
    assert_eq!((code, state.as_str()), (1, "fails"));
    assert!(found.contains("500.0 MB (--max-memory)") && fix.contains("--max-memory gpu="), "{found} {fix}");
    // More than any disk has.
    let many = ["--model", "tiny/moe", "--traces", "1000000000000"];
    let (code, value) = examined(&mut doctor(&bench, &many));
    let (state, _, fix) = line(&value, "out");
    assert_eq!((code, state.as_str()), (1, "fails"), "{value:#}");
    assert!(fix.contains("--traces"), "{fix}");
    let (code, value) = examined(&mut doctor(&bench, &["--model", "tiny/mo"]));
    assert!(code == 1 && line(&value, "model").2.contains("did you mean tiny/moe"), "{value:#}");
    let (code, value) = examined(&mut doctor(&bench, &["--model", "hf://tiny"]));
    assert!(code == 1 && line(&value, "model").2.contains("OWNER/NAME"), "{value:#}");
}

#[test]
fn texts_are_read_as_plan_reads_them() {
    let bench = Bench::new();
    let write = |name: &str, text: &[u8]| std::fs::write(bench.dir.path().join(name), text).unwrap();
    write("good.jsonl", format!("{{\"text\": \"{}\"}}\n", "so many words ".repeat(8)).as_bytes());
    write("numbers.jsonl", b"{\"n\": 1}\n");
    write("empty.jsonl", b"");
    write("bad.parquet", b"PAR1 no Parquet PAR1");
    let of = |dataset: &str| {
        let (code, value) = examined(&mut doctor(&bench, &["--dataset", dataset]));
        let (state, found, _) = line(&value, "texts");
        (code, state, found)
    };
    let (code, state, found) = of("good.jsonl");
    assert_eq!((code, state.as_str(), found.as_str()), (0, "ok", "1 that can be taken, of 1 data set"));
    for (dataset, what) in
        [("numbers.jsonl", "column"), ("empty.jsonl", "none of its 0 rows"), ("bad.parquet", "bad.parquet")]
    {
        let (code, state, found) = of(dataset);
        assert_eq!((code, state.as_str(), found.contains(what)), (1, "fails", true), "{dataset}: {found}");
    }
    let (code, state, found) = of("hf://datasets/owner/texts/plain");
    assert_eq!((code, state.as_str(), found.contains("once they are here")), (0, "ok", true), "{found}");
    let (code, value) = examined(&mut doctor(&bench, &["--dataset", "hf://datasets/owner/text"]));
    assert_eq!((code, line(&value, "texts").0.as_str()), (1, "note"));
    assert!(line(&value, "model").2.contains("did you mean hf://datasets/owner/texts?"), "{value:#}");
    let (_, value) = examined(&mut doctor(&bench, &["--dataset", "imdb:label"]));
    let fix = line(&value, "model").2;
    assert!(fix.contains("write hf://datasets/stanfordnlp/imdb/plain_text:COLUMN"), "{fix}");
    let mute = bench.dir.path().join("mute");
    std::fs::create_dir(&mute).unwrap();
    std::fs::write(mute.join("config.json"), fixture("model/config.json")).unwrap();
    std::fs::write(mute.join("model.safetensors"), fixture("model/model.safetensors")).unwrap();
    std::fs::write(mute.join("tokenizer.json"), "{").unwrap();
    let (code, value) = examined(&mut doctor(&bench, &["--model", "mute", "--dataset", "good.jsonl"]));
    assert_eq!((code, line(&value, "model").0.as_str()), (1, "fails"), "{value:#}");
}

#[test]
fn what_is_not_here_cannot_be_had_offline_and_what_is_needs_no_cache_that_can_be_written() {
    let bench = Bench::new();
    let hub = ["--model", "tiny/moe", "--traces", "6"];
    // Lists and small files alone.
    assert_eq!(examined(&mut doctor(&bench, &hub)).0, 0);
    let (code, value) = examined(&mut doctor(&bench, &[&hub[..], &["--offline"]].concat()));
    let (state, found, _) = line(&value, "model");
    assert_eq!((code, state.as_str()), (1, "fails"), "{value:#}");
    assert!(found.contains("to download, and the Hub is not asked"), "{found}");
    let (code, stderr) = bench.ends(&[&["collect", "--offline"], &hub[..]].concat());
    assert_eq!(
        (code, stderr.contains("E-OFFLINE"), stderr.contains("downloading")),
        (69, true, false),
        "{stderr}"
    );
    let (code, stderr) = bench.ends(&[&["collect", "--quiet"], &hub[..]].concat());
    assert_eq!(code, 0, "{stderr}");
    let (code, value) = examined(&mut doctor(&bench, &[&hub[..], &["--offline"]].concat()));
    assert_eq!((code, line(&value, "texts").0.as_str()), (0, "ok"), "{value:#}");
    let (code, value) = examined(doctor(&bench, &hub).env("HF_ENDPOINT", "http://127.0.0.1:9"));
    assert_eq!((code, line(&value, "model").0.as_str()), (1, "ok"), "{value:#}");
    assert!(line(&value, "hub").2.starts_with("--offline takes everything"), "{value:#}");
}

/// Lists that hang are not asked for again.
#[test]
fn a_hub_whose_lists_hang_is_given_up_soon() {
    let bench = Bench::new();
    bench.server.fault("/api/models", 9, Fault::Late(Duration::from_secs(30)));
    let begun = Instant::now();
    let (code, value) = examined(&mut doctor(&bench, &["--model", "tiny/moe"]));
    assert_eq!((code, line(&value, "model").0.as_str()), (1, "fails"), "{value:#}");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}
