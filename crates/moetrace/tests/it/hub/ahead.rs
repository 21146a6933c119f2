//! What is looked at before anything large is downloaded: arguments, settings, memory.

use super::*;

#[test]
fn plan_says_what_would_be_downloaded_and_fetches_no_weights_and_no_texts() {
    let bench = Bench::new();
    let plan = [&["plan", "--json"], &COLLECT[2..]].concat();
    let output = bench.moetrace().args(&plan).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let before: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let texts = fixture("datasets/encyclopaedia.parquet").len();
    assert_eq!(before["download"]["bytes"], fixture("model/model.safetensors").len() + texts);
    let cached: Vec<bool> = before["download"]["repositories"][0]["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["cached"].as_bool().unwrap())
        .collect();
    assert_eq!(cached, [true, true, true, false]);
    assert!(!bench.server.seen().iter().any(|seen| seen.path.starts_with("/cdn/")));
    let output = bench.moetrace().args([&["plan"], &COLLECT[2..]].concat()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("to download") && text.contains("plain/train-00000-of-00001.parquet"), "{text}");
    assert_eq!(bench.ends(&COLLECT).0, 0);
    let output = bench.moetrace().args(&plan).output().unwrap();
    let after: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(after["download"]["bytes"], 0);
    assert_eq!(after["shards_committed"], after["shards"].as_array().unwrap().len());
}

#[test]
fn nothing_large_is_downloaded_for_arguments_that_cannot_be() {
    let bench = Bench::new();
    std::fs::create_dir(bench.dir.path().join("foreign")).unwrap();
    std::fs::write(bench.dir.path().join("foreign/thesis.tex"), "").unwrap();
    let texts = "hf://datasets/owner/texts/plain";
    let twice =
        ["--dataset", "a=hf://datasets/owner/texts/plain", "--dataset", "a=hf://datasets/owner/texts/plain"];
    let column = format!("{texts}:nope");
    for (args, name) in [
        (&["--dataset", "x=/nowhere.jsonl"][..], "E-DATA"),
        (&["--dataset", texts, "--dataset", "x=/nowhere.jsonl"], "E-DATA"),
        (&twice, "E-DATASET"),
        (&["--dataset", "../x=hf://datasets/owner/texts/plain"], "E-DATASET"),
        (&["--dataset", &column], "E-COLUMN"),
        (&["--dataset", texts, "--out", "foreign"], "E-FOREIGN"),
        // No machine has so many.
        (&["--dataset", texts, "--device", "cuda:99"], "E-DEVICE"),
    ] {
        let (_, stderr) = bench.fails(&[&["collect", "--model", "tiny/moe"], args].concat());
        assert!(stderr.contains(&format!("error[{name}]")), "{args:?}: {stderr}");
        assert!(
            !bench.server.seen().iter().any(|seen| seen.path == weights()),
            "{args:?} fetched the weights"
        );
        if name == "E-COLUMN" {
            assert!(stderr.contains("hf://datasets/OWNER/NAME:COLUMN"), "{stderr}");
        }
    }
    let mut odd = model();
    odd.branches.get_mut("main").unwrap().insert("tokenizer.json".into(), b"{}".to_vec());
    bench.server.publish(odd);
    let (_, stderr) = bench.fails(&["collect", "--model", "tiny/moe"]);
    assert!(stderr.contains("error[E-TOKENIZER]"), "{stderr}");
    assert!(!bench.server.seen().iter().any(|seen| seen.path == weights()));
}

#[test]
fn a_proxy_that_is_not_spoken_and_certificates_that_are_not_there_are_settings() {
    let bench = Bench::new();
    for (name, value) in [
        ("ALL_PROXY", "socks5://127.0.0.1:9"),
        ("HTTP_PROXY", "socks5h://127.0.0.1:9"),
        ("SSL_CERT_FILE", "/nowhere.pem"),
        ("REQUESTS_CA_BUNDLE", "/"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "soon"),
    ] {
        let mut command = bench.moetrace();
        command.args(["plan", "--model", "tiny/moe"]).env(name, value);
        let (code, stderr) = ends(&mut command);
        assert_eq!((code, stderr.contains("E-HUB-SETTING")), (78, true), "{name}: {stderr}");
        let mut command = bench.moetrace();
        command.args(["plan", "--model", "tiny/moe", "--offline"]).env(name, value);
        let (code, stderr) = ends(&mut command);
        assert_eq!((code, stderr.contains("E-OFFLINE")), (69, true), "{name}: {stderr}");
    }
}

#[test]
fn memory_is_planned_before_weights_are_here_as_it_is_from_their_headers() {
    let bench = Bench::new();
    let four_bits = bench.dir.path().join("four-bits");
    let made = ["quantize", "tiny/moe", "--quiet", "--out", "four-bits"];
    assert_eq!(bench.ends(&made).0, 0);
    let names = ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"];
    let read = |name| (name, std::fs::read(four_bits.join(name)).unwrap());
    bench.server.publish(Repo::new(Kind::Model, "tiny/nf4", names.map(read)));
    std::fs::remove_dir_all(bench.cache()).unwrap();
    let large = || bench.server.seen().iter().filter(|seen| seen.path.starts_with("/cdn/")).count();
    let large_before = large();
    let plan = |args: &[&str]| -> serde_json::Value {
        let output = bench.moetrace().args(["plan", "--json", "--traces", "8"]).args(args).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut plan: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        // What is free of this machine's memory changes from one moment to the next.
        if let Some(gpu) = plan["gpu"].as_object_mut().filter(|_| !args.contains(&"--max-memory")) {
            gpu.remove("host_limit_bytes").unwrap();
        }
        plan
    };
    let ways: [&[&str]; 5] = [
        &["--model", "tiny/moe"],
        &["--model", "tiny/moe", "--gpu", "rtx3090"],
        &["--model", "tiny/moe", "--gpu", "rtx3090", "--precision", "nf4", "--max-memory", "1GB,cpu=500MB"],
        &["--model", "tiny/moe", "--gpu", "h200", "--precision", "f32", "--nll"],
        &["--model", "tiny/nf4", "--gpu", "a6000"],
    ];
    let before = ways.map(plan);
    assert_eq!(large(), large_before, "weights were fetched");
    // Without a network too: what is in the cache says enough.
    assert_eq!(plan(&[ways[1], &["--offline"]].concat())["gpu"], before[1]["gpu"]);
    for model in ["tiny/moe", "tiny/nf4"] {
        let args = [
            "collect", "--quiet", "--traces", "6", "--device", "cpu", "--model", model, "--out", "run",
            "--fresh",
        ];
        let (code, stderr) = bench.ends(&args);
        assert_eq!(code, 0, "{stderr}");
        std::fs::remove_dir_all(bench.dir.path().join("run")).unwrap();
    }
    for (way, mut before) in ways.into_iter().zip(before) {
        let mut after = plan(way);
        assert_eq!(before["estimate"]["weight_bytes"], after["estimate"]["weight_bytes"], "{way:?}");
        for key in ["engine", "precision", "compute_dtype", "family", "total_parameters"] {
            assert_eq!(before["model"][key], after["model"][key], "{way:?}: {key}");
        }
        let most = |plan: &serde_json::Value| plan["estimate"]["activation_bytes"].as_u64().unwrap();
        assert!(most(&before) >= most(&after), "{way:?}");
        // How long it takes is known once texts are.
        if way.contains(&"--gpu") {
            assert!(before["gpu"]["speed"]["seconds"].is_null() && after["gpu"]["speed"]["seconds"].is_f64());
            for plan in [&mut before, &mut after] {
                plan["gpu"]["speed"]["seconds"] = serde_json::Value::Null;
            }
        }
        assert_eq!(before["gpu"], after["gpu"], "{way:?}");
    }
}

#[test]
fn what_does_not_fit_is_refused_before_its_weights_are_downloaded() {
    let bench = Bench::new();
    let args = ["--model", "tiny/moe", "--gpu", "rtx3090", "--max-memory", "500MB"];
    let (code, stderr) = bench.fails(&[&["plan"], &args[..]].concat());
    assert_eq!(code, 78, "{stderr}");
    assert!(stderr.contains("E-MEMORY") && stderr.contains("500.0 MB"), "{stderr}");
    let (code, stderr) = bench.fails(&["collect", "--model", "tiny/moe", "--device", "cuda:77"]);
    assert!(code == 78 && stderr.contains("E-DEVICE"), "{stderr}");
    assert!(!bench.server.seen().iter().any(|seen| seen.path.starts_with("/cdn/")), "weights were fetched");
}

#[test]
fn a_new_commit_with_the_same_weights_is_planned_from_the_cache() {
    let bench = Bench::new();
    assert_eq!(bench.ends(&COLLECT).0, 0);
    let mut newer = model();
    let mut files: Vec<(&str, Vec<u8>)> =
        ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]
            .map(|name| (name, fixture(&format!("model/{name}"))))
            .into();
    files.push(("CARD.md", b"another card".to_vec()));
    newer.branch("main", files);
    bench.server.publish(newer);
    bench.server.forget();
    let (code, stderr) = bench.ends(&["plan", "--traces", "6", "--model", "tiny/moe", "--out", "other"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(!bench.server.seen().iter().any(|seen| seen.path.starts_with("/cdn/")));
}

#[test]
fn a_model_without_a_tokenizer_is_refused_before_its_weights_are_downloaded_unless_texts_need_none() {
    let bench = Bench::new();
    let files = ["config.json", "model.safetensors"].map(|name| (name, fixture(&format!("model/{name}"))));
    bench.server.publish(Repo::new(Kind::Model, "tiny/mute", files));
    let collect = |dataset: &str| {
        bench.ends(&["collect", "--quiet", "--traces", "4", "--model", "tiny/mute", "--dataset", dataset])
    };
    let (code, stderr) = collect("hf://datasets/owner/texts/plain");
    assert_eq!((code, stderr.contains("E-TOKENIZER")), (65, true), "{stderr}");
    assert!(!bench.server.seen().iter().any(|seen| seen.path == weights()), "weights were fetched");
    let ids = r#"{"input_ids": [1, 2, 3, 4, 5, 6, 7, 8]}"#;
    std::fs::write(bench.dir.path().join("ids.jsonl"), format!("{ids}\n")).unwrap();
    let (code, stderr) = collect("ids.jsonl");
    assert_eq!(code, 0, "{stderr}");
}
