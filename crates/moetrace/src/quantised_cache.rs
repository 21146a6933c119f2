//! The quantised form of a dense checkpoint, kept in the cache (`--cache-quantized`).
//!
//! A folder's name is a hash of what decides its bytes; beside it lies a list of its files with their hashes. What
//! does not agree with its list is made again, so a damaged cache changes no run.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use moetrace_model::{Quantisation, QuantiseSettings, quantise_checkpoint};
use moetrace_run::ModelFacts;

use crate::failure::{Failure, code};
use crate::prepare::hash;
use crate::progress::Progress;
use crate::quantisation::{described, on_threads};

/// Changes whenever the same source and settings would be quantised to other bytes.
const FORM: &str = "nf4 form 1";

/// What is quantised, and how.
pub(crate) struct Wanted<'a> {
    pub(crate) model: &'a Path,
    pub(crate) facts: &'a ModelFacts,
    pub(crate) quantisation: Quantisation,
    pub(crate) threads: usize,
}

/// The folder below `cache` with the quantised form; made if it is not there or not what it was.
pub(crate) fn take(cache: &Path, wanted: &Wanted<'_>, progress: &mut Progress) -> Result<PathBuf, Failure> {
    let mut hasher = blake3::Hasher::new();
    let Wanted { facts, quantisation, .. } = wanted;
    for part in [FORM, &facts.config_hash, &facts.weights_hash, &described(*quantisation)] {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    }
    let folder = cache.join("quantised");
    let out = folder.join(&hasher.finalize().to_hex()[..32]);
    let list = out.with_extension("json");
    if out.exists() {
        if read(&list).is_some_and(|listed| files(&out).is_ok_and(|found| found == listed)) {
            return Ok(out);
        }
        progress.line(&format!("{} is not what was written there; making it again", out.display()));
        fs::remove_dir_all(&out).map_err(|error| refused("remove", &out, &error))?;
    }
    fs::create_dir_all(&folder).map_err(|error| refused("create", &folder, &error))?;
    progress.line(&format!("quantising into {}", out.display()));
    let settings = QuantiseSettings { quantisation: *quantisation, ..QuantiseSettings::default() };
    on_threads(Some(wanted.threads), || quantise_checkpoint(wanted.model, &out, &settings, &mut |_| {}))??;
    let found = files(&out)?;
    let text = serde_json::to_string_pretty(&found).unwrap_or_default();
    fs::write(&list, text).map_err(|error| refused("write", &list, &error))?;
    Ok(out)
}

fn refused(action: &str, path: &Path, error: &std::io::Error) -> Failure {
    let what = format!("cannot {action} {}: {error}", path.display());
    Failure::new(code::NO_OUTPUT, "E-CACHE", what, "set MOETRACE_CACHE to a folder that can be written")
}

fn read(list: &Path) -> Option<BTreeMap<String, String>> {
    serde_json::from_slice(&fs::read(list).ok()?).ok()
}

/// Every file of the folder and its hash.
fn files(folder: &Path) -> Result<BTreeMap<String, String>, Failure> {
    let entries = fs::read_dir(folder).map_err(|error| refused("read", folder, &error))?;
    let mut found = BTreeMap::new();
    for entry in entries {
        let path = entry.map_err(|error| refused("read", folder, &error))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        found.insert(name, hash(&path)?.to_hex().to_string());
    }
    Ok(found)
}
