//! Which files make up a checkpoint; nothing but safetensors inside its own folder is ever opened.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::ModelError;

/// One file for the whole model.
const SINGLE: &str = "model.safetensors";
/// The list of shards of a model in several files.
const INDEX: &str = "model.safetensors.index.json";
/// Some 200 bytes a tensor: enough for 300,000 tensors, of which the largest supported model has 19,000.
const INDEX_BYTES: u64 = 64 << 20;

/// File names inside the folder, and what the index claims to be in each.
pub(super) struct FileList {
    pub(super) names: Vec<String>,
    /// Tensor to file name; empty without an index.
    pub(super) claims: BTreeMap<String, String>,
    /// The index itself, if there is one.
    pub(super) index: Option<PathBuf>,
}

pub(super) fn find(dir: &Path) -> Result<FileList, ModelError> {
    if dir.join(SINGLE).exists() {
        return Ok(FileList { names: vec![SINGLE.to_owned()], claims: BTreeMap::new(), index: None });
    }
    let index = dir.join(INDEX);
    if index.exists() {
        let claims = read_index(&index)?;
        let mut names: Vec<_> = claims.values().cloned().collect();
        names.sort_unstable();
        names.dedup();
        return Ok(FileList { names, claims, index: Some(index) });
    }
    let entries = fs::read_dir(dir).map_err(|source| ModelError::Io { path: dir.to_owned(), source })?;
    let mut paths: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    paths.sort_unstable();
    match paths.into_iter().find(|path| is_pickle_name(path)) {
        Some(path) => Err(ModelError::Pickle { path }),
        None => Err(ModelError::NoWeights { dir: dir.to_owned() }),
    }
}

fn read_index(path: &Path) -> Result<BTreeMap<String, String>, ModelError> {
    let file = path.display().to_string();
    let io = |source| ModelError::Io { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(io)?.take(INDEX_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > INDEX_BYTES {
        return Err(ModelError::FileSize { file, bytes: bytes.len() as u64, limit: INDEX_BYTES });
    }
    let value: Value =
        serde_json::from_slice(&bytes).map_err(|source| ModelError::Json { file: file.clone(), source })?;
    let Some(map) = value.get("weight_map").and_then(Value::as_object) else {
        return Err(ModelError::WeightMap { file, found: "missing or not an object" });
    };
    if map.is_empty() {
        return Err(ModelError::WeightMap { file, found: "empty" });
    }
    let mut claims = BTreeMap::new();
    for (tensor, name) in map {
        let name = name
            .as_str()
            .ok_or_else(|| ModelError::WeightMap { file: file.clone(), found: "not a list of file names" })?;
        if is_pickle_name(Path::new(name)) {
            return Err(ModelError::Pickle { path: PathBuf::from(name) });
        }
        if !stays_in_folder(name) {
            let (tensor, found) = (tensor.clone(), name.to_owned());
            return Err(ModelError::OutsideFolder { file, tensor, found });
        }
        claims.insert(tensor.clone(), name.to_owned());
    }
    Ok(claims)
}

/// One plain component that ends in `.safetensors`, whatever system reads it.
fn stays_in_folder(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    name.ends_with(".safetensors") && !name.starts_with('.') && name.chars().all(plain)
}

fn is_pickle_name(path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("").to_ascii_lowercase();
    matches!(extension.as_str(), "bin" | "pt" | "pth" | "pkl" | "pickle" | "ckpt")
}
