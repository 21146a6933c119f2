//! Models and data sets by their names, from a hub on loopback.

mod ahead;
mod by_name;
mod data_sets;
mod failures;
mod presets;

use std::path::{Path, PathBuf};
use std::process::Command;

use loopback_hub::{Fault, Kind, LoopbackHub, Repo};

use crate::program::{assert_same_tables, ends, json, moetrace, succeeds};

const TOKEN: &str = "hf_CANARY_0123456789abcdef";

pub(crate) fn fixture(name: &str) -> Vec<u8> {
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

/// A hub with both, and a folder for caches and runs.
pub(crate) struct Bench {
    pub(crate) server: LoopbackHub,
    pub(crate) dir: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let bench = Self { server: LoopbackHub::start().unwrap(), dir: tempfile::tempdir().unwrap() };
        bench.server.publish(model());
        bench.server.publish(squad());
        bench
    }

    pub(crate) fn cache(&self) -> PathBuf {
        self.dir.path().join("hub")
    }

    /// The program with this hub and a cache of its own.
    pub(crate) fn moetrace(&self) -> Command {
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

    pub(crate) fn ends(&self, args: &[&str]) -> (i32, String) {
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
