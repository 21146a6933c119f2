//! The cache's layout, which Python's client shares:
//! `models--OWNER--NAME/{blobs/HASH, refs/REVISION, snapshots/COMMIT/PATH -> ../../blobs/HASH}` and
//! `.locks/models--OWNER--NAME/HASH.lock`; and two folders of our own, `listings/COMMIT.json` and `checked/HASH`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use crate::check::Hasher;
use crate::write::{UNFINISHED, create_parent, placed, write_whole};
use crate::{Commit, FileHash, HubError, RepoAddress, RepoFile, Revision};

/// Folders below each other in a snapshot; deeper ones are loops or mistakes.
const DEPTH: usize = 32;

/// The folder of one repository.
#[derive(Debug, Clone)]
pub(crate) struct RepoCache {
    root: PathBuf,
    locks: PathBuf,
}

impl RepoCache {
    pub(crate) fn new(cache: &Path, address: &RepoAddress) -> Self {
        let (kind, id) = (address.kind.plural(), &address.id);
        let name = format!("{kind}--{}--{}", id.owner(), id.name());
        Self { root: cache.join(&name), locks: cache.join(".locks").join(name) }
    }

    /// The folder.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where checked files lie, by their hashes.
    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    pub(crate) fn blob(&self, hash: &FileHash) -> PathBuf {
        self.blobs().join(hash.hex())
    }

    pub(crate) fn lock_file(&self, hash: &FileHash) -> PathBuf {
        self.locks.join(format!("{}.lock", hash.hex()))
    }

    pub(crate) fn snapshot(&self, commit: &Commit) -> PathBuf {
        self.root.join("snapshots").join(commit.as_str())
    }

    /// The commit that a revision was when it was last looked up.
    pub(crate) fn resolved(&self, revision: &Revision) -> Option<Commit> {
        let commit = match revision.commit() {
            Some(commit) => commit,
            None => Commit::parse(fs::read_to_string(self.reference(revision)).ok()?.trim())?,
        };
        self.snapshot(&commit).is_dir().then_some(commit)
    }

    fn reference(&self, revision: &Revision) -> PathBuf {
        self.root.join("refs").join(revision.as_str())
    }

    /// Remembers what a revision is.
    pub(crate) fn remember(&self, revision: &Revision, commit: &Commit) -> Result<(), HubError> {
        let path = self.reference(revision);
        let is_known = fs::read_to_string(&path).is_ok_and(|known| known.trim() == commit.as_str());
        if revision.commit().is_some() || is_known {
            return Ok(());
        }
        create_parent(&path)?;
        write_whole(&path, commit.as_str().as_bytes())
    }

    /// Whether the file is there at its full length.
    pub(crate) fn has(&self, commit: &Commit, file: &RepoFile) -> bool {
        self.found(commit, file).is_some()
    }

    /// Where the file lies at its full length: as a blob, or in the snapshot itself, where Python's client puts it if
    /// links cannot be made. A link in place of a blob is none.
    pub(crate) fn found(&self, commit: &Commit, file: &RepoFile) -> Option<PathBuf> {
        let is_whole = |path: &PathBuf| {
            fs::symlink_metadata(path).is_ok_and(|about| about.is_file() && about.len() == file.bytes)
        };
        let blob = file.hash.as_ref().map(|hash| self.blob(hash)).filter(is_whole);
        blob.or_else(|| Some(self.snapshot(commit).join(&file.path)).filter(is_whole))
    }

    /// Whether the bytes at `path` are those of the hash. They are read once: what was found is kept beside the blobs
    /// with the file's length and time of change, and holds as long as those stay.
    pub(crate) fn is_sound(
        &self,
        path: &Path,
        hash: &FileHash,
        reads: &mut dyn FnMut(),
    ) -> Result<bool, HubError> {
        let state = state(path).map_err(HubError::io("open", path))?;
        let note = self.note(hash);
        if fs::read_to_string(&note).is_ok_and(|noted| noted == state) {
            return Ok(true);
        }
        reads();
        let bytes = fs::metadata(path).map_err(HubError::io("open", path))?.len();
        let mut hasher = Hasher::new(hash, bytes);
        hasher.update_from(path).map_err(HubError::io("read", path))?;
        let is_sound = hasher.finish() == *hash;
        if is_sound {
            self.checked(hash, &state);
        }
        Ok(is_sound)
    }

    /// Keeps that a blob was checked.
    pub(crate) fn blob_is_sound(&self, hash: &FileHash) {
        if let Ok(state) = state(&self.blob(hash)) {
            self.checked(hash, &state);
        }
    }

    /// Not kept, as in a cache that is only read, the file is read again the next time.
    fn checked(&self, hash: &FileHash, state: &str) {
        let note = self.note(hash);
        let _ = create_parent(&note).and_then(|()| write_whole(&note, state.as_bytes()));
    }

    fn note(&self, hash: &FileHash) -> PathBuf {
        self.root.join("checked").join(hash.hex())
    }

    /// Refuses a repository of which a folder leads elsewhere: what is written there, or read, is not the cache's.
    pub(crate) fn is_inside(&self, commit: &Commit) -> Result<(), HubError> {
        let snapshot = self.snapshot(commit);
        [self.blobs(), snapshot].iter().try_for_each(|folder| self.holds(folder))
    }

    /// Whether a folder, or what of its path exists, lies in this repository's.
    fn holds(&self, folder: &Path) -> Result<(), HubError> {
        let Ok(root) = self.root.canonicalize() else { return Ok(()) };
        let there = folder.ancestors().find(|path| path.exists()).unwrap_or(folder);
        let leads = there.canonicalize().map_err(HubError::io("open", there))?;
        if leads.starts_with(root) { Ok(()) } else { Err(HubError::Linked { path: there.to_owned() }) }
    }

    /// Puts a blob into the snapshot under its path, whatever stood there.
    pub(crate) fn link(&self, commit: &Commit, file: &RepoFile) -> Result<(), HubError> {
        let path = self.snapshot(commit).join(&file.path);
        let Some(hash) = file.hash.as_ref().filter(|hash| self.blob(hash).is_file()) else { return Ok(()) };
        let up = "../".repeat(file.path.matches('/').count() + 2);
        let target = PathBuf::from(format!("{up}blobs/{}", hash.hex()));
        if fs::read_link(&path).is_ok_and(|found| found == target) {
            return Ok(());
        }
        self.holds(path.parent().unwrap_or(&path))?;
        create_parent(&path)?;
        placed(&target, &self.blob(hash), &path)
            .and_then(|part| fs::rename(part, &path))
            .map_err(HubError::io("link", &path))
    }

    /// The files of a snapshot as they lie in the cache, in name order; links that lead nowhere, and what a process that
    /// was killed left unfinished, are left out.
    pub(crate) fn listed(&self, commit: &Commit) -> Result<Vec<RepoFile>, HubError> {
        let mut files = Vec::new();
        let root = self.root.canonicalize().map_err(HubError::io("open", &self.root))?;
        walk(&root, &self.snapshot(commit), "", 0, &mut files)?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(files)
    }
}

fn walk(
    root: &Path,
    folder: &Path,
    below: &str,
    depth: usize,
    files: &mut Vec<RepoFile>,
) -> Result<(), HubError> {
    let entries = fs::read_dir(folder).map_err(HubError::io("list", folder))?;
    for entry in entries {
        let entry = entry.map_err(HubError::io("list", folder))?;
        let name = format!("{below}{}", entry.file_name().to_string_lossy());
        let path = entry.path();
        if name.ends_with(UNFINISHED) {
            continue;
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if depth < DEPTH {
                walk(root, &path, &format!("{name}/"), depth + 1, files)?;
            }
            continue;
        }
        let Ok(real) = path.canonicalize() else { continue };
        if !real.starts_with(root) {
            return Err(HubError::Linked { path });
        }
        let bytes = fs::metadata(&real).map_err(HubError::io("open", &real))?.len();
        let blob = real.file_name().and_then(|name| name.to_str()).filter(|_| path.is_symlink());
        files.push(RepoFile { path: name, bytes, hash: blob.and_then(FileHash::named) });
    }
    Ok(())
}

/// A file's length and time of its last change, in nanoseconds since 1970.
fn state(path: &Path) -> io::Result<String> {
    let about = fs::metadata(path)?;
    let changed = about.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(format!("{} {}", about.len(), changed.as_nanos()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(unix)]
    fn a_leftover_link_does_not_lead_to_the_blob_being_emptied() {
        let dir = tempfile::tempdir().unwrap();
        let address = RepoAddress::model("o/n").unwrap();
        let cache = RepoCache::new(dir.path(), &address);
        let commit = Commit::parse(&"a1".repeat(20)).unwrap();
        let hash = FileHash::Git("b2".repeat(20));
        let file = RepoFile { path: "config.json".into(), bytes: 7, hash: Some(hash.clone()) };
        create_parent(&cache.blob(&hash)).unwrap();
        fs::write(cache.blob(&hash), "{\"a\":1}").unwrap();
        cache.link(&commit, &file).unwrap();
        let link = cache.snapshot(&commit).join("config.json");
        fs::remove_file(&link).unwrap();
        // Whatever names an earlier process of the same number would have left.
        for call in 0..64 {
            let left = format!("config.json.{:08x}{call:04x}{UNFINISHED}", std::process::id());
            std::os::unix::fs::symlink(cache.blob(&hash), cache.snapshot(&commit).join(left)).unwrap();
        }
        cache.link(&commit, &file).unwrap();
        assert_eq!(fs::read_to_string(&link).unwrap(), "{\"a\":1}");
        assert!(link.is_symlink());
        // And leftovers are no files of the snapshot.
        assert_eq!(cache.listed(&commit).unwrap(), [file]);
    }
}
