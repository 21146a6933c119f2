//! The small model and the six data sets that come with moetrace.
//!
//! They are compiled in, unpacked once into the cache under the hash of their bytes, and then opened like any
//! checkpoint and any file: the default run takes no road of its own.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::failure::{Failure, code};

macro_rules! fixture {
    ($path:literal) => {
        ($path, include_bytes!(concat!("../../../fixtures/", $path)).as_slice())
    };
}

/// Every embedded file, by its path below the unpacked folder.
const FILES: [(&str, &[u8]); 10] = [
    fixture!("model/config.json"),
    fixture!("model/model.safetensors"),
    fixture!("model/tokenizer.json"),
    fixture!("model/tokenizer_config.json"),
    fixture!("datasets/mathematics.jsonl"),
    fixture!("datasets/code.jsonl.gz"),
    fixture!("datasets/encyclopaedia.parquet"),
    fixture!("datasets/verse.txt"),
    fixture!("datasets/chinese.csv"),
    fixture!("datasets/questions.arrow"),
];

/// What the embedded model is called in manifests and run folders.
pub(crate) const MODEL_NAME: &str = "moetrace-tiny";

/// The unpacked embedded files.
pub(crate) struct Embedded {
    root: PathBuf,
}

impl Embedded {
    /// Unpacks into `cache` unless that has been done.
    pub(crate) fn unpack(cache: &Path) -> Result<Self, Failure> {
        let mut hasher = blake3::Hasher::new();
        for (name, bytes) in FILES {
            hasher.update(name.as_bytes()).update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
        }
        let root = cache.join("embedded").join(&hasher.finalize().to_hex()[..16]);
        if !is_complete(&root) {
            write_all(&root).map_err(|error| {
                let what = format!("cannot unpack the embedded model into {}: {error}", root.display());
                Failure::new(
                    code::NO_OUTPUT,
                    "E-CACHE",
                    what,
                    "set MOETRACE_CACHE to a folder that can be written",
                )
            })?;
        }
        Ok(Self { root })
    }

    /// The checkpoint's folder.
    pub(crate) fn model(&self) -> PathBuf {
        self.root.join("model")
    }

    /// The six data sets as `--dataset` would have them.
    pub(crate) fn datasets(&self) -> Vec<String> {
        let names = FILES.iter().filter_map(|(path, _)| path.strip_prefix("datasets/"));
        names
            .map(|file| {
                let name = file.split('.').next().unwrap_or(file);
                format!("{name}={}", self.root.join("datasets").join(file).display())
            })
            .collect()
    }
}

/// Whether every file is there with every byte: a cache may lie on a disk that forgets some.
fn is_complete(root: &Path) -> bool {
    FILES.iter().all(|(name, bytes)| std::fs::read(root.join(name)).is_ok_and(|found| found == *bytes))
}

fn write_files(folder: &Path) -> std::io::Result<()> {
    for (name, bytes) in FILES {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap_or(folder))?;
        let mut file = std::fs::File::create(&path)?;
        file.write_all(bytes)?;
        // A name that outlives its bytes would be a model of zeros after a crash.
        file.sync_all()?;
    }
    Ok(())
}

/// Writes beside the final folder and renames: of two processes the first wins, and nobody sees half a model.
fn write_all(root: &Path) -> std::io::Result<()> {
    let tmp = root.with_extension(format!("{}.part", std::process::id()));
    let _ = std::fs::remove_dir_all(&tmp);
    if let Err(error) = write_files(&tmp) {
        // On a full disk half of it would stay; the error to be told is the first one.
        let _ = std::fs::remove_dir_all(&tmp);
        return Err(error);
    }
    match std::fs::rename(&tmp, root) {
        Ok(()) => Ok(()),
        Err(error) => {
            // Either another process was first, or a damaged folder is in the way.
            if is_complete(root) {
                return std::fs::remove_dir_all(&tmp);
            }
            if !root.exists() {
                return Err(error);
            }
            std::fs::remove_dir_all(root)?;
            std::fs::rename(&tmp, root)
        }
    }
}
