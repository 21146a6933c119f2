//! Models and data sets by their names, from a hub on loopback: the whole way from a name to a finished run.

use std::path::{Path, PathBuf};
use std::process::Command;

use loopback_hub::{Fault, Kind, LoopbackHub, Repo};

use crate::program::{assert_same_tables, ends, json, moetrace, succeeds};

const TOKEN: &str = "hf_CANARY_0123456789abcdef";

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name)).unwrap()
}

/// The embedded model as a repository.
fn model() -> Repo {
    let names = ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors", "CARD.md"];
    let mut repo =
        Repo::new(Kind::Model, "tiny/moe", names.map(|name| (name, fixture(&format!("model/{name}")))));
    repo.licence = Some("apache-2.0".into());
    repo
}

/// Where the weights are.
fn weights() -> String {
    format!("/cdn/{}", loopback_hub::sha256(&fixture("model/model.safetensors")))
}

/// The embedded Parquet data set as one of the Hub, with two splits.
fn squad() -> Repo {
    let texts = fixture("datasets/encyclopaedia.parquet");
    let mut repo = Repo::new(
        Kind::Dataset,
        "owner/texts",
        [("plain/train-00000-of-00001.parquet", texts.clone()), ("plain/test-00000-of-00001.parquet", texts)],
    );
    repo.licence = Some("cc-by-4.0".into());
    repo
}

/// Variables that name certificates, as this machine may have them set.
const CERTIFICATES: [&str; 3] = ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"];

struct Bench {
    server: LoopbackHub,
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let bench = Self { server: LoopbackHub::start().unwrap(), dir: tempfile::tempdir().unwrap() };
        bench.server.publish(model());
        bench.server.publish(squad());
        bench
    }

    fn cache(&self) -> PathBuf {
        self.dir.path().join("hub")
    }

    /// The program with this hub and a cache of its own.
    fn moetrace(&self) -> Command {
        let mut command = moetrace();
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy().to_ascii_uppercase();
            let is_of_hub = text.starts_with("HF_") || text.starts_with("HUGGING");
            if is_of_hub || text.ends_with("_PROXY") || CERTIFICATES.contains(&text.as_str()) {
                command.env_remove(name);
            }
        }
        // The first of these that is set is taken.
        command.env("HF_ENDPOINT", self.server.url()).env("HF_HUB_CACHE", self.cache());
        command.env("HF_HOME", self.dir.path().join("home")).env("NO_PROXY", "127.0.0.1");
        command.current_dir(self.dir.path());
        command
    }

    fn ends(&self, args: &[&str]) -> (i32, String) {
        ends(self.moetrace().args(args))
    }

    fn fails(&self, args: &[&str]) -> (i32, String) {
        let (code, stderr) = self.ends(args);
        assert_ne!(code, 0, "{args:?} succeeded");
        assert!(stderr.contains("\n  help: "), "{stderr}");
        assert!(!stderr.contains("CANARY"), "{stderr}");
        (code, stderr)
    }
}

const COLLECT: [&str; 8] = [
    "collect",
    "--quiet",
    "--traces",
    "8",
    "--model",
    "tiny/moe",
    "--dataset",
    "hf://datasets/owner/texts/plain",
];

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
fn data_sets_that_cannot_be_read_are_named_with_what_they_have() {
    let bench = Bench::new();
    let publish = |id: &str, files: &[(&str, Vec<u8>)]| {
        bench.server.publish(Repo::new(
            Kind::Dataset,
            id,
            files.iter().map(|(path, bytes)| (*path, bytes.clone())),
        ));
    };
    let texts = || fixture("datasets/encyclopaedia.parquet");
    publish(
        "o/two",
        &[("a/train-00000-of-00001.parquet", texts()), ("b/train-00000-of-00001.parquet", texts())],
    );
    publish("o/none", &[("data.json", b"{}".to_vec())]);
    publish("o/broken", &[("train.parquet", b"PAR1 this is no Parquet file at all PAR1".to_vec())]);
    publish(
        "o/slash",
        &[("d/a/train-00000-of-00001.parquet", texts()), ("d/b/train-00000-of-00001.parquet", texts())],
    );
    publish(
        "o/again",
        &[("train-00000-of-00001.parquet", texts()), ("train-00000-of-00001-abc.parquet", texts())],
    );
    let sealed = [&texts()[..texts().len() - 4], b"PARE"].concat();
    publish("o/sealed", &[("train.parquet", sealed)]);
    publish("o/half", &[("train-00000-of-00002.parquet", texts())]);
    let says = |dataset: &str, exit: i32, parts: &[&str]| {
        let (code, stderr) = bench.fails(&["collect", "--traces", "4", "--dataset", dataset]);
        assert_eq!(code, exit, "{stderr}");
        for part in parts {
            assert!(stderr.contains(part), "{part} is not in {stderr}");
        }
    };
    says("hf://datasets/o/two", 2, &["E-DATASET", "a, b", "hf://datasets/o/two/a"]);
    says("hf://datasets/o/two/c", 2, &["E-DATASET", "no configuration \"c\""]);
    says("hf://datasets/o/two/a/test", 2, &["E-DATASET", "no split \"test\"; it has train"]);
    says("hf://datasets/o/none", 65, &["E-DATA", "no Parquet files", "refs/convert/parquet"]);
    says("hf://datasets/o/broken", 65, &["E-DATA", "train.parquet"]);
    says("hf://datasets/o/half", 65, &["E-DATA", "1 of the 2 files"]);
    says("hf://datasets/o/two/a:nothing", 65, &["E-COLUMN", "nothing", "columns: "]);
    says("hf://datasets/o/slash", 2, &["E-DATASET", "d/a, d/b", "hf://datasets/o/slash/d%2Fa"]);
    says("hf://datasets/o/slash/d%2Fa:nothing", 65, &["E-COLUMN"]);
    says("hf://datasets/o/again", 65, &["E-DATA", "more than once", "train-00000-of-00001-abc.parquet"]);
    says("hf://datasets/o/sealed", 65, &["E-DATA", "encrypted"]);
    says("hf://datasets/o/absent", 66, &["E-NOREPO", "data set o/absent"]);
    says("hf://o/two", 2, &["E-DATASET", "hf://datasets/OWNER/NAME"]);
    says("x=hf://datasets/o/a b", 2, &["E-HUB-NAME"]);
}

#[test]
fn the_hubs_own_conversion_is_read_where_a_repository_has_no_parquet() {
    let bench = Bench::new();
    let mut repo = Repo::new(Kind::Dataset, "o/json", [("data.json", b"{}".to_vec())]);
    repo.branch(
        "refs/convert/parquet",
        [("default/partial-train/0000.parquet", fixture("datasets/encyclopaedia.parquet"))],
    );
    bench.server.publish(repo);
    let args = ["collect", "--traces", "4", "--dataset", "hf://datasets/o/json", "--out", "run"];
    let (code, stderr) = bench.ends(&args);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("only the first part"), "{stderr}");
    let manifest = json(&bench.dir.path().join("run/manifest.json"));
    assert_eq!(manifest["datasets"][0]["hub"]["revision"], "refs/convert/parquet");
    let (code, stderr) = bench.ends(&[&args[..], &["--offline"]].concat());
    assert_eq!(code, 0, "{stderr}");
}

#[test]
fn files_whose_names_say_nothing_are_read_from_the_hubs_own_conversion() {
    let bench = Bench::new();
    let texts = || fixture("datasets/encyclopaedia.parquet");
    let names = ["part-00000-9d8f-c000.snappy.parquet", "part-00001-9d8f-c000.snappy.parquet"];
    let mut repo = Repo::new(Kind::Dataset, "o/spark", names.map(|name| (name, texts())));
    repo.branch("refs/convert/parquet", [("default/train/0000.parquet", texts())]);
    bench.server.publish(repo);
    let (code, stderr) = bench.ends(&[
        "collect",
        "--quiet",
        "--traces",
        "4",
        "--dataset",
        "hf://datasets/o/spark",
        "--out",
        "run",
    ]);
    assert_eq!(code, 0, "{stderr}");
    let manifest = json(&bench.dir.path().join("run/manifest.json"));
    assert_eq!(manifest["datasets"][0]["hub"]["revision"], "refs/convert/parquet");
}

/// The embedded Parquet file four times, each by another version of its writer: the budget holds three, the texts need one.
#[test]
fn of_a_large_data_set_as_many_files_are_downloaded_as_the_texts_need() {
    let bench = Bench::new();
    let texts = fixture("datasets/encyclopaedia.parquet");
    let names = [0, 1, 2, 3].map(|i| format!("data/train-{i:05}-of-00004.parquet"));
    let version = b"version 26.0.";
    let at = texts.windows(version.len()).position(|w| w == version).unwrap() + version.len();
    let variant = |i: u8| [&texts[..at], &[b'2' + i], &texts[at + 1..]].concat();
    let files = names.iter().zip(0..).map(|(name, i)| (name.as_str(), variant(i)));
    bench.server.publish(Repo::new(Kind::Dataset, "o/large", files));
    let budget = (3 * texts.len()).to_string();
    let collect = |traces: &str, out: &str, more: &[&str]| {
        let args = ["collect", "--quiet", "--dataset", "hf://datasets/o/large", "--file-budget", &budget];
        bench.ends(&[&args[..], &["--traces", traces, "--out", out], more].concat())
    };
    let read = |out: &str| -> Vec<String> {
        let manifest = json(&bench.dir.path().join(out).join("manifest.json"));
        let files = manifest["datasets"][0]["files"].as_array().unwrap().clone();
        assert_eq!(files.len(), 4, "files that are not read are listed too");
        let read = files.iter().filter(|file| file["read"] == true);
        read.map(|file| file["path"].as_str().unwrap().to_owned()).collect()
    };
    let (code, stderr) = collect("4", "few", &[]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(read("few").len(), 1);
    // One whole file, and the end of it before.
    assert!(bench.server.file_bytes_sent() <= 2 * texts.len() as u64, "{}", bench.server.file_bytes_sent());
    let (code, stderr) = collect("4", "offline", &["--offline"]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(read("offline"), read("few"));
    let (code, stderr) = collect("1000", "many", &[]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(read("many").len(), 4);
    // What is not here cannot be looked at offline.
    std::fs::remove_dir_all(bench.cache()).unwrap();
    assert_eq!(collect("4", "again", &[]).0, 0);
    let (code, stderr) = collect("1000", "more", &["--offline"]);
    assert_eq!((code, stderr.contains("E-OFFLINE")), (69, true), "{stderr}");
    // Another choice of files would be other texts, so a server without ranges is not worked around.
    bench.server.fault("/cdn/", 1, Fault::Instead(200, vec![], texts.clone()));
    let (code, stderr) = collect("1000", "whole", &[]);
    assert_eq!((code, stderr.contains("--file-budget")), (69, true), "{stderr}");
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
