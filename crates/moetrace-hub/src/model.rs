//! Which files of a repository make a checkpoint: configuration, tokenizer, index, safetensors. Nothing else is fetched.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::listing::is_safe;
use crate::{HubError, RepoFile, Snapshot};

/// Small files of a model, of which the first must be there.
const SMALL: [&str; 5] =
    ["config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", INDEX];

const INDEX: &str = "model.safetensors.index.json";
const SINGLE: &str = "model.safetensors";

/// A small file that is larger is none: the readers of configuration, tokenizer and index take no more than 64 MiB.
const SMALL_BYTES: u64 = 64 << 20;

/// Suffixes of checkpoints that are pickles.
const PICKLES: [&str; 6] = [".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"];

/// What of a model is fetched before its weights.
#[derive(Debug, Clone)]
pub struct ModelFiles<'a> {
    /// Configuration, tokenizer and index.
    pub small: Vec<&'a RepoFile>,
    /// The index, where the weights are in several files.
    pub index: Option<&'a RepoFile>,
}

/// The small files of a model.
///
/// # Errors
/// [`HubError::NoFile`] without a `config.json`; [`HubError::Pickle`] if all weights are pickles;
/// [`HubError::NoWeights`] if there are none; [`HubError::Offline`] instead where the cache may lack what the commit has.
pub fn model_files(snapshot: &Snapshot) -> Result<ModelFiles<'_>, HubError> {
    let has = |name: &str| snapshot.file(name).is_some();
    if !has(SMALL[0]) {
        let missing = HubError::NoFile { subject: snapshot.subject.clone(), file: SMALL[0].to_owned() };
        return Err(snapshot.lacks(SMALL[0], missing));
    }
    if !has(SINGLE) && !has(INDEX) {
        let top = snapshot.files.iter().filter(|file| file.is_top()).map(|file| file.path.as_str());
        let pickles: Vec<String> =
            top.clone().filter(|p| PICKLES.iter().any(|end| p.ends_with(end))).map(str::to_owned).collect();
        if !pickles.is_empty() && !top.clone().any(|p| p.ends_with(".safetensors")) {
            let refused = HubError::Pickle { subject: snapshot.subject.clone(), files: pickles };
            return Err(snapshot.lacks(SINGLE, refused));
        }
        let why = format!("it has neither {SINGLE} nor {INDEX}");
        return Err(snapshot.lacks(SINGLE, HubError::NoWeights { subject: snapshot.subject.clone(), why }));
    }
    let small = SMALL.iter().filter(|name| **name != INDEX || !has(SINGLE));
    let small: Vec<&RepoFile> = small.filter_map(|name| snapshot.file(name)).collect();
    if let Some(file) = small.iter().find(|file| file.bytes > SMALL_BYTES) {
        let why = format!("{} has {} bytes, expected at most {SMALL_BYTES}", file.path, file.bytes);
        return Err(HubError::NoWeights { subject: snapshot.subject.clone(), why });
    }
    let index = small.iter().copied().find(|file| file.path == INDEX);
    Ok(ModelFiles { small, index })
}

/// The weight files: `model.safetensors`, else those that the index (its text) names. The index is a file of others:
/// a name in it is one of the listed files at the top of the repository, or an error.
///
/// # Errors
/// [`HubError::NoWeights`] if the index is none, or names what is not there or is no safetensors file;
/// [`HubError::Offline`] where the cache may lack what the commit has.
pub fn weight_files<'a>(snapshot: &'a Snapshot, index: Option<&str>) -> Result<Vec<&'a RepoFile>, HubError> {
    let refused = |why: String| HubError::NoWeights { subject: snapshot.subject.clone(), why };
    if let Some(single) = snapshot.file(SINGLE) {
        return Ok(vec![single]);
    }
    let index: Value = serde_json::from_str(index.unwrap_or_default())
        .map_err(|e| refused(format!("{INDEX} is no JSON: {e}")))?;
    let map = index.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| refused(format!("{INDEX} has no weight_map")))?;
    let names: Option<BTreeSet<&str>> = map.values().map(Value::as_str).collect();
    let names =
        names.ok_or_else(|| refused(format!("weight_map of {INDEX} names something else than files")))?;
    let file = |name: &str| {
        if !name.ends_with(".safetensors") || !is_safe(name) {
            return Err(refused(format!("{INDEX} names {name:?}, expected a .safetensors file beside it")));
        }
        let listed = snapshot.file(name).filter(|file| file.is_top());
        listed
            .ok_or_else(|| snapshot.lacks(name, refused(format!("{INDEX} names {name}, which is not there"))))
    };
    names.into_iter().map(file).collect()
}
