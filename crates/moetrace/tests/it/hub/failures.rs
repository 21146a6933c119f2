//! What people meet on the way, and that no token is shown by any of it.

use super::*;

#[test]
fn a_download_that_broke_off_is_gone_on_with_by_the_same_command() {
    let bench = Bench::new();
    bench.server.fault(&weights(), 1, Fault::Cut(5_000_000));
    bench.server.fault(&weights(), 1, Fault::Instead(429, vec!["Retry-After: 900".into()], vec![]));
    let (code, stderr) = bench.fails(&COLLECT);
    assert_eq!(code, 75, "{stderr}");
    assert!(stderr.contains("E-HUB-BUSY") && stderr.contains("900 s"), "{stderr}");
    bench.server.forget();
    let loud = [&["collect"], &COLLECT[2..]].concat();
    let (code, stderr) = bench.ends(&loud);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("model.safetensors: 5.0 MB of 11.8 MB are there, going on"), "{stderr}");
    let all = fixture("model/model.safetensors").len();
    assert_eq!(bench.server.file_bytes_sent(), all as u64 - 5_000_000);
}

#[test]
fn what_people_meet_on_the_way_has_a_name_a_code_and_a_next_step() {
    let bench = Bench::new();
    let with_model = |model: &str| bench.fails(&["collect", "--model", model]);
    let says = |(code, stderr): (i32, String), exit: i32, parts: &[&str]| {
        assert_eq!(code, exit, "{stderr}");
        for part in parts {
            assert!(stderr.contains(part), "{part} is not in {stderr}");
        }
    };
    says(with_model("other/moe"), 66, &["E-NOREPO", "did you mean tiny/moe"]);
    says(with_model("nobody/nothing"), 66, &["E-NOREPO", "HF_TOKEN", "token: not set"]);
    says(with_model("tiny/moe@v9"), 66, &["E-NOREPO", "no revision \"v9\""]);
    says(with_model("tiny/moe@../x"), 2, &["E-HUB-NAME"]);
    says(with_model("hf://tiny"), 2, &["E-HUB-NAME", "OWNER/NAME"]);
    let mut gated = model();
    (gated.id, gated.gated_for) = ("tiny/gated".into(), Some(TOKEN.into()));
    bench.server.publish(gated);
    let page = format!("accept the terms at {}/tiny/gated", bench.server.url());
    says(with_model("tiny/gated"), 77, &["E-AUTH", "gated", &page]);
    let pickles = [("config.json", fixture("model/config.json")), ("pytorch_model.bin", vec![1])];
    bench.server.publish(Repo::new(Kind::Model, "tiny/pickle", pickles));
    says(with_model("tiny/pickle"), 65, &["E-PICKLE", "can run code"]);
    let foreign =
        [("config.json", b"{\"model_type\": \"bert\"}".to_vec()), ("model.safetensors", vec![0; 100])];
    bench.server.publish(Repo::new(Kind::Model, "tiny/bert", foreign));
    bench.server.forget();
    says(with_model("tiny/bert"), 65, &["E-CONFIG", "bert"]);
    assert!(
        !bench.server.seen().iter().any(|seen| seen.path.starts_with("/cdn/")),
        "its weights were fetched"
    );
    bench.server.fault("/cdn/", 9, Fault::Spoilt);
    says(with_model("tiny/moe"), 69, &["E-HUB-BODY", "sha256", "nothing of it was kept"]);
    bench.server.forget();
    bench.server.fault("/api/", 9, Fault::Instead(200, vec![], b"<html>hotel".to_vec()));
    says(with_model("tiny/moe"), 69, &["E-HUB", "no answer of the Hub", "browser"]);
    bench.server.forget();
    says(bench.fails(&["collect", "--offline", "--model", "a/b"]), 69, &["E-OFFLINE", "--offline"]);
    let mut gone = bench.moetrace();
    gone.args(["collect", "--model", "tiny/moe"]).env("HF_ENDPOINT", "http://127.0.0.1:9");
    says(ends(&mut gone), 69, &["E-NETWORK", "127.0.0.1:9"]);
    let mut no_hub = bench.moetrace();
    no_hub.args(["collect", "--model", "tiny/moe"]).env("HF_ENDPOINT", "huggingface.co");
    says(ends(&mut no_hub), 78, &["E-HUB-SETTING", "HF_ENDPOINT"]);
}

#[test]
fn a_token_is_in_no_output_and_in_no_file() {
    let bench = Bench::new();
    let mut gated = model();
    gated.gated_for = Some(TOKEN.into());
    bench.server.publish(gated);
    std::fs::create_dir_all(bench.dir.path().join("home")).unwrap();
    std::fs::write(bench.dir.path().join("home/token"), TOKEN).unwrap();
    let output = bench
        .moetrace()
        .args([&["collect"], &COLLECT[2..]].concat())
        .args(["--out", "run", "--json"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::write(bench.dir.path().join("home/token"), format!("{TOKEN}x")).unwrap();
    let refused = bench.moetrace().args(["collect", "--model", "tiny/moe@v2"]).output().unwrap();
    assert!(!refused.status.success());
    for said in [&output.stdout, &output.stderr, &refused.stderr] {
        assert!(!String::from_utf8_lossy(said).contains("CANARY"));
    }
    let mut open = vec![bench.dir.path().join("run"), bench.cache()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let held = std::fs::read(&path).unwrap();
                assert!(!held.windows(6).any(|window| window == b"CANARY"), "{}", path.display());
            }
        }
    }
    // Tokens went where they belong and nowhere else.
    let elsewhere = bench.server.seen().into_iter().filter(|seen| seen.path.starts_with("/cdn/"));
    assert!(
        elsewhere.clone().count() > 0
            && elsewhere.clone().all(|seen| !seen.headers.contains_key("authorization"))
    );
}
