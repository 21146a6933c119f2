//! What a commit holds, kept beside its snapshot: without a network it says which files there are, not only which came.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cache::RepoCache;
use crate::id::is_lower_hex;
use crate::listing::is_safe;
use crate::write::{create_parent, write_whole};
use crate::{Commit, FileHash, HubError, RepoFile};

/// Largest list that is read back: about a million files.
const LIMIT: u64 = 256 << 20;

/// A commit's files and the licences of its card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedListing {
    pub(crate) files: Vec<RepoFile>,
    pub(crate) licences: Vec<String>,
}

impl SavedListing {
    /// The list of a commit, if it was kept; checked like one that comes from a server.
    pub(crate) fn read(cache: &RepoCache, commit: &Commit) -> Option<Self> {
        let of_python = || {
            let path = cache.root().join("trees").join(format!("{commit}.json"));
            Some(Self { files: parsed::<Tree>(&path)?.listed()?, licences: Vec::new() })
        };
        let saved = parsed(&Self::path(cache, commit)).or_else(of_python)?;
        let is_sound = |file: &RepoFile| {
            let is_hash = match &file.hash {
                Some(FileHash::Sha256(hex)) => is_lower_hex(hex, 64),
                Some(FileHash::Git(hex)) => is_lower_hex(hex, 40),
                None => true,
            };
            is_hash && is_safe(&file.path)
        };
        saved.files.iter().all(is_sound).then_some(saved)
    }

    /// Keeps the list, unless that was done.
    pub(crate) fn keep(&self, cache: &RepoCache, commit: &Commit) -> Result<(), HubError> {
        let path = Self::path(cache, commit);
        if path.is_file() {
            return Ok(());
        }
        create_parent(&path)?;
        // Lists of strings and numbers can always be written.
        write_whole(&path, &serde_json::to_vec(self).unwrap_or_default())
    }

    /// Not `trees`, where Python's client keeps a list of its own in a form of its own.
    fn path(cache: &RepoCache, commit: &Commit) -> PathBuf {
        cache.root().join("listings").join(format!("{commit}.json"))
    }
}

fn parsed<T: for<'a> Deserialize<'a>>(path: &Path) -> Option<T> {
    fs::metadata(path).ok().filter(|about| about.len() <= LIMIT)?;
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// `trees/COMMIT.json` of `huggingface_hub` (`_tree_cache.py`, version 1).
#[derive(Deserialize)]
struct Tree {
    format_version: u32,
    files: BTreeMap<String, TreeFile>,
}

#[derive(Deserialize)]
struct TreeFile {
    size: u64,
    blob_id: String,
    lfs_sha256: Option<String>,
    lfs_size: Option<u64>,
}

impl Tree {
    fn listed(self) -> Option<Vec<RepoFile>> {
        let file = |(path, file): (String, TreeFile)| match (file.lfs_sha256, file.lfs_size) {
            (Some(hash), Some(bytes)) => RepoFile { path, bytes, hash: Some(FileHash::Sha256(hash)) },
            _ => RepoFile { path, bytes: file.size, hash: Some(FileHash::Git(file.blob_id)) },
        };
        (self.format_version == 1).then(|| self.files.into_iter().map(file).collect())
    }
}
