//! The whole way from a name to a finished run, and what of it is in the manifest.

use super::*;

#[test]
fn a_run_by_names_has_the_bytes_of_a_run_by_paths_and_says_where_all_came_from() {
    let bench = Bench::new();
    let (code, stderr) = bench.ends(&COLLECT);
    assert_eq!(code, 0, "{stderr}");
    let run = bench.dir.path().join("runs/moe");
    let manifest = json(&run.join("manifest.json"));
    assert_eq!(manifest["model"]["name"], "tiny/moe");
    assert_eq!(manifest["model"]["revision"], model().commit("main").unwrap());
    assert_eq!(manifest["model"]["hub"]["revision"], "main");
    let weights = &manifest["model"]["hub"]["files"][3];
    assert_eq!(weights["path"], "model.safetensors");
    assert_eq!(
        weights["hash"],
        format!("sha256 {}", loopback_hub::sha256(&fixture("model/model.safetensors")))
    );
    let dataset = &manifest["datasets"][0];
    assert_eq!(
        (&dataset["name"], &dataset["files"][0]["path"]),
        (&"texts".into(), &"plain/train-00000-of-00001.parquet".into())
    );
    assert_eq!(dataset["hub"]["commit"], squad().commit("main").unwrap());
    let card = std::fs::read_to_string(run.join("README.md")).unwrap();
    assert!(card.contains("- texts: `owner/texts` at commit") && card.contains(": cc-by-4.0"), "{card}");
    assert!(card.contains("- model `tiny/moe`") && card.contains(": apache-2.0"), "{card}");

    // The same files by their paths.
    let by_path = bench.dir.path().join("by-path");
    let snapshot = bench.cache().join("models--tiny--moe/snapshots").join(model().commit("main").unwrap());
    let texts = bench.cache().join("datasets--owner--texts/snapshots").join(squad().commit("main").unwrap());
    let dataset = format!("texts={}", texts.display());
    let args =
        ["collect", "--quiet", "--traces", "8", "--model", snapshot.to_str().unwrap(), "--dataset", &dataset];
    assert_eq!(ends(moetrace().args(args).arg("--out").arg(&by_path)).0, 0);
    assert_same_tables(&run, &by_path);
}

#[test]
fn a_second_run_downloads_nothing_and_one_without_a_network_gives_the_same_bytes() {
    let bench = Bench::new();
    let with = |out: &str, more: &[&str]| bench.ends(&[&COLLECT[..], &["--out", out], more].concat());
    assert_eq!(with("a", &[]).0, 0);
    bench.server.forget();
    assert_eq!(with("b", &[]).0, 0);
    assert_eq!(bench.server.file_bytes_sent(), 0);
    bench.server.forget();
    let (code, stderr) = with("c", &["--offline"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(bench.server.seen().is_empty());
    for run in ["b", "c"] {
        assert_same_tables(&bench.dir.path().join("a"), &bench.dir.path().join(run));
    }
    // Both are the same run, so either continues the other; the environment's own switch works too.
    let mut again = bench.moetrace();
    again.args(COLLECT).args(["--out", "a"]).env("HF_HUB_OFFLINE", "1");
    assert_eq!(ends(&mut again).0, 0);
    let licences = |run: &str| {
        json(&bench.dir.path().join(run).join("manifest.json"))["datasets"][0]["hub"]["licences"].clone()
    };
    assert_eq!(licences("c"), licences("a"));
}

#[test]
fn a_folder_wins_over_a_name_and_the_hub_can_be_insisted_on() {
    let bench = Bench::new();
    let folder = bench.dir.path().join("tiny/moe");
    std::fs::create_dir_all(&folder).unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::write(folder.join(name), fixture(&format!("model/{name}"))).unwrap();
    }
    let plan = |model: &str| bench.ends(&["plan", "--traces", "6", "--model", model]);
    let (code, stderr) = plan("tiny/moe");
    assert_eq!((code, stderr.contains("the folder here is used")), (0, false), "{stderr}");
    assert!(bench.server.seen().is_empty(), "nobody was asked");
    assert_eq!(
        bench.ends(&["collect", "--quiet", "--traces", "6", "--model", "hf://tiny/moe", "--out", "run"]).0,
        0
    );
    let (code, stderr) = plan("tiny/moe");
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("the folder here is used") && stderr.contains("hf://tiny/moe"), "{stderr}");
}

#[test]
fn a_model_of_the_hub_can_be_quantised() {
    let bench = Bench::new();
    let (code, stderr) = bench.ends(&["quantize", "tiny/moe", "--out", "four-bits"]);
    assert_eq!(code, 0, "{stderr}");
    let made = bench.dir.path().join("four-bits");
    assert!(made.join("model.safetensors").is_file() && made.join("tokenizer.json").is_file());
}

#[test]
fn without_names_no_connection_is_opened() {
    let bench = Bench::new();
    let output =
        bench.moetrace().args(["collect", "--quiet", "--traces", "6", "--out", "run"]).output().unwrap();
    assert!(output.status.success());
    assert!(bench.server.seen().is_empty() && !bench.cache().exists());
    drop(succeeds(&["plan", "--traces", "6"]));
}

/// Small random checkpoints of their families under the names that people type.
#[test]
fn the_models_of_all_families_are_had_by_their_names_at_a_revision() {
    let bench = Bench::new();
    let row = |i: u64| format!("{{\"input_ids\": [{}, 9, 4, 7, 30, 12, 5, {}]}}\n", i + 3, 90 - i);
    std::fs::write(bench.dir.path().join("ids.jsonl"), (0..6).map(row).collect::<String>()).unwrap();
    for (name, case, family) in [
        ("deepseek-ai/deepseek-moe-16b-base", "deepseek_small", "deepseek"),
        ("Qwen/Qwen1.5-MoE-A2.7B", "qwen2_moe_small", "qwen2_moe"),
        ("mistralai/Mixtral-8x7B-v0.1", "mixtral_small", "mixtral"),
        ("allenai/OLMoE-1B-7B-0125", "olmoe_small", "olmoe"),
        ("Qwen/Qwen3-30B-A3B", "qwen3_moe_small", "qwen3_moe"),
    ] {
        let config = bench.dir.path().join(format!("{case}.json"));
        std::fs::write(&config, fixture(&format!("parity/{case}/config.json"))).unwrap();
        let config = config.display().to_string();
        assert_eq!(bench.ends(&["synth", "--quiet", "--like", &config, "--out", case]).0, 0);
        let entries = std::fs::read_dir(bench.dir.path().join(case)).unwrap();
        let files: Vec<(String, Vec<u8>)> = entries
            .map(|entry| entry.unwrap().path())
            .map(|path| {
                (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(path).unwrap())
            })
            .collect();
        let files = files.iter().map(|(name, bytes)| (name.as_str(), bytes.clone()));
        bench.server.publish(Repo::new(Kind::Model, name, files));
        let model = format!("{name}@main");
        let args = ["collect", "--quiet", "--traces", "6", "--dataset", "ids.jsonl", "--model", &model];
        let (code, stderr) = bench.ends(&args);
        assert_eq!(code, 0, "{stderr}");
        // The run is called what the model is, without its owner.
        let run = bench.dir.path().join("runs").join(name.rsplit('/').next().unwrap());
        let manifest = json(&run.join("manifest.json"));
        assert_eq!(
            (&manifest["model"]["name"], &manifest["model"]["family"]),
            (&name.into(), &family.into())
        );
        let hub = &manifest["model"]["hub"];
        assert_eq!((&hub["repo"], &hub["revision"]), (&name.into(), &"main".into()));
        assert_eq!(hub["commit"].as_str().unwrap().len(), 40);
    }
}
