//! The cache's layout, which Python's client shares:
//! `models--OWNER--NAME/{blobs/HASH, refs/REVISION, snapshots/COMMIT/PATH -> ../../blobs/HASH}` and
//! `.locks/models--OWNER--NAME/HASH.lock`.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::{Commit, FileHash, HubError, RepoAddress, RepoFile, Revision};

/// How names of files end that are being written.
pub(crate) const UNFINISHED: &str = ".moetrace.incomplete";

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

    /// Whether the file is there at its full length: blobs get their names only after their hashes were checked.
    pub(crate) fn has(&self, commit: &Commit, file: &RepoFile) -> bool {
        let is_whole =
            |path: &Path| fs::metadata(path).is_ok_and(|about| about.is_file() && about.len() == file.bytes);
        match &file.hash {
            Some(hash) if is_whole(&self.blob(hash)) => true,
            // Where links cannot be made, Python's client puts the file itself into the snapshot.
            _ => {
                let path = self.snapshot(commit).join(&file.path);
                fs::symlink_metadata(&path).is_ok_and(|about| about.is_file()) && is_whole(&path)
            }
        }
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
        create_parent(&path)?;
        let part = beside(&path);
        place(&target, &self.blob(hash), &part)
            .and_then(|()| fs::rename(&part, &path))
            .map_err(HubError::io("link", &path))
    }

    /// The files of a snapshot as they lie in the cache, in name order; links that lead nowhere are left out.
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

/// Writes a small file at once: nobody sees a part of it.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), HubError> {
    let part = beside(path);
    let written = File::create_new(&part).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&part, path)).map_err(HubError::io("write", path))
}

/// A link; a copy where links cannot be made.
fn place(target: &Path, blob: &Path, at: &Path) -> io::Result<()> {
    #[cfg(unix)]
    if std::os::unix::fs::symlink(target, at).is_ok() {
        return Ok(());
    }
    let _ = target;
    fs::copy(blob, at).map(drop)
}

pub(crate) fn create_parent(path: &Path) -> Result<(), HubError> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(HubError::io("create", parent))
}

/// A name beside a file that no other attempt has: of this process and call.
pub(crate) fn beside(path: &Path) -> PathBuf {
    use std::sync::atomic::{AtomicU32, Ordering};
    static CALL: AtomicU32 = AtomicU32::new(0);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    let call = CALL.fetch_add(1, Ordering::Relaxed);
    name.push(format!(".{:08x}{call:04x}{UNFINISHED}", std::process::id()));
    path.with_file_name(name)
}
