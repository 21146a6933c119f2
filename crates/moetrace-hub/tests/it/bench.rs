//! A hub, a cache and a client for a test.

use std::path::{Path, PathBuf};
use std::time::Duration;

use loopback_hub::{Kind, LoopbackHub, Repo};
use moetrace_hub::{Hub, HubError, HubSettings, RepoAddress, RepoFile, Snapshot, Token};

/// The model of most tests.
pub(crate) const TINY: &str = "owner/tiny";

/// Bytes that compress badly and repeat nowhere near.
pub(crate) fn bytes(n: usize) -> Vec<u8> {
    (0..n as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

/// The weights of `TINY`.
pub(crate) fn weights() -> Vec<u8> {
    bytes(100_000)
}

pub(crate) fn tiny() -> Repo {
    Repo::new(
        Kind::Model,
        TINY,
        [
            ("config.json", b"{\"model_type\": \"mixtral\"}".to_vec()),
            ("tokenizer.json", b"{}".to_vec()),
            ("README.md", b"a card".to_vec()),
            ("model.safetensors", weights()),
            ("onnx/model.bin", b"not wanted".to_vec()),
        ],
    )
}

/// Everything a test needs.
pub(crate) struct Bench {
    pub(crate) server: LoopbackHub,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) settings: HubSettings,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let (server, dir) = (LoopbackHub::start().unwrap(), tempfile::tempdir().unwrap());
        server.publish(tiny());
        let mut settings = HubSettings::new(dir.path().join("home/hub"));
        server.url().clone_into(&mut settings.endpoint);
        settings.pause = Duration::from_millis(1);
        settings.retries = 2;
        settings.read_timeout = Duration::from_secs(2);
        Self { server, dir, settings }
    }

    pub(crate) fn with_token(mut self, token: &str) -> Self {
        self.settings.token = Some(Token::new(token, "HF_TOKEN").unwrap());
        self
    }

    pub(crate) fn hub(&self) -> Hub {
        Hub::new(self.settings.clone()).unwrap()
    }

    /// The same client without a network.
    pub(crate) fn offline(&self) -> Hub {
        Hub::new(HubSettings { offline: true, ..self.settings.clone() }).unwrap()
    }

    /// Fetches files of a model, and gives the snapshot.
    pub(crate) fn fetch(&self, model: &str, names: &[&str]) -> Result<Snapshot, HubError> {
        fetch(&self.hub(), model, names)
    }

    /// The file's bytes in the snapshot.
    pub(crate) fn read(snapshot: &Snapshot, name: &str) -> Vec<u8> {
        std::fs::read(snapshot.folder.join(name)).unwrap()
    }

    /// Every file below the test's folder that is not below the cache.
    pub(crate) fn outside(&self) -> Vec<PathBuf> {
        let mut found = files(self.dir.path());
        found.retain(|path| !path.starts_with(&self.settings.cache));
        found
    }

    /// Names of blobs, unfinished ones included.
    pub(crate) fn blobs(&self) -> Vec<String> {
        let blobs =
            files(&self.settings.cache).into_iter().filter(|path| path.parent().unwrap().ends_with("blobs"));
        blobs.map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
    }
}

pub(crate) fn fetch(hub: &Hub, model: &str, names: &[&str]) -> Result<Snapshot, HubError> {
    let snapshot = hub.snapshot(&RepoAddress::model(model)?)?;
    let wanted: Vec<&RepoFile> = names.iter().map(|name| snapshot.file(name).unwrap()).collect();
    hub.fetch(&snapshot, &wanted, &mut |_| {})?;
    Ok(snapshot)
}

/// All files and links below a folder, in name order.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else { return found };
    for entry in entries {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}
