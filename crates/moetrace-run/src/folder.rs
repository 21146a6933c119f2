//! Where a run keeps what.

use std::hash::{BuildHasher as _, RandomState};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use crate::commit::KINDS;
use crate::error::OnPath;
use crate::manifest::MANIFEST_VERSION;
use crate::{CommitRecord, Fs, Manifest, RunError, Shard};

/// A run folder by its path.
#[derive(Debug, Clone)]
pub struct RunFolder {
    root: PathBuf,
}

impl RunFolder {
    /// Names a folder; nothing is touched.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `manifest.json`.
    pub fn manifest_path(&self) -> PathBuf {
        self.root.join("manifest.json")
    }

    pub(crate) fn commits(&self) -> PathBuf {
        self.root.join("state/commits")
    }

    pub(crate) fn run_lock_path(&self) -> PathBuf {
        self.root.join("state/run.lock")
    }

    /// The commit record of a shard.
    pub fn commit_path(&self, shard: &str) -> PathBuf {
        self.commits().join(format!("{shard}.json"))
    }

    pub(crate) fn locks(&self) -> PathBuf {
        self.root.join("state/locks")
    }

    pub(crate) fn lock_path(&self, shard: &str) -> PathBuf {
        self.locks().join(format!("{shard}.lock"))
    }

    /// A shard's file in `data`, `samples` or `hidden`.
    pub fn shard_path(&self, folder: &str, shard: &str) -> PathBuf {
        self.root.join(folder).join(format!("{shard}.parquet"))
    }

    pub(crate) fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// Reads the manifest.
    ///
    /// # Errors
    /// [`RunError::NotARun`] without one, [`RunError::Damaged`] if it does not parse, contradicts itself or is newer
    /// than this program.
    pub fn manifest(&self) -> Result<Manifest, RunError> {
        let path = self.manifest_path();
        let bytes = match std::fs::read(&path) {
            // A file that was named has no manifest in it either.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Err(RunError::NotARun { path: self.root.clone() });
            }
            other => other.on("cannot read", &path)?,
        };
        let damaged = |what: String| RunError::Damaged { path: path.clone(), what };
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
        if manifest.version > MANIFEST_VERSION {
            let (found, known) = (manifest.version, MANIFEST_VERSION);
            return Err(damaged(format!(
                "version {found} is newer than {known}, the newest this program knows"
            )));
        }
        if manifest.version == 0 {
            return Err(damaged("its version is 0, expected 1 or more".to_owned()));
        }
        match manifest.objection() {
            Some(what) => Err(damaged(what)),
            None => Ok(manifest),
        }
    }

    /// Whether a run has begun here.
    pub fn has_manifest(&self) -> bool {
        self.manifest_path().is_file()
    }

    /// Writes a file durably under a name that must be free.
    pub(crate) fn place_new(
        &self,
        fs: &dyn Fs,
        tmp_name: &str,
        to: &Path,
        bytes: &[u8],
    ) -> Result<(), RunError> {
        let tmp = self.write_tmp(fs, tmp_name, bytes)?;
        if let Err(error) = fs.rename_new(&tmp, to) {
            // What stays in tmp is removed when the run is next opened with nobody at work in it.
            let _ = fs.remove(&tmp);
            return Err(error).on("cannot create", to);
        }
        self.sync_parent(fs, to)
    }

    /// Writes a derived file durably, replacing an older one.
    pub(crate) fn place_over(
        &self,
        fs: &dyn Fs,
        tmp_name: &str,
        to: &Path,
        bytes: &[u8],
    ) -> Result<(), RunError> {
        let tmp = self.write_tmp(fs, tmp_name, bytes)?;
        if let Err(error) = fs.rename_over(&tmp, to) {
            let _ = fs.remove(&tmp);
            return Err(error).on("cannot write", to);
        }
        self.sync_parent(fs, to)
    }

    fn write_tmp(&self, fs: &dyn Fs, name: &str, bytes: &[u8]) -> Result<PathBuf, RunError> {
        let tmp = self.tmp_path(name);
        let mut file = fs.create_new(&tmp).on("cannot write", &tmp)?;
        let written = file.write_all(bytes).and_then(|()| file.flush()).and_then(|()| file.sync());
        if written.is_err() {
            let _ = fs.remove(&tmp);
        }
        written.on("cannot write", &tmp)?;
        Ok(tmp)
    }

    /// A name in `tmp` that no other process and no earlier attempt uses. A process's number does not say which
    /// it is: in a container every run is number 1.
    pub(crate) fn tmp_path(&self, name: &str) -> PathBuf {
        let random = RandomState::new().hash_one(name);
        self.tmp().join(format!("{name}.{}.{random:016x}.part", std::process::id()))
    }

    pub(crate) fn sync_parent(&self, fs: &dyn Fs, path: &Path) -> Result<(), RunError> {
        let parent = path.parent().unwrap_or(&self.root);
        fs.sync_dir(parent).on("cannot sync", parent)
    }

    /// The commit record of a shard, if it has one. Whether it is of this run, [`committed`](Self::committed) says.
    ///
    /// # Errors
    /// [`RunError::Damaged`] if it does not parse or names another shard or files outside the run.
    pub fn commit(&self, shard: &str) -> Result<Option<CommitRecord>, RunError> {
        let path = self.commit_path(shard);
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.on("cannot read", &path)?,
        };
        let damaged = |what: String| RunError::Damaged { path: path.clone(), what };
        let record: CommitRecord = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
        // Both become paths.
        if record.shard != shard {
            return Err(damaged(format!("it is the record of shard {:?}", record.shard)));
        }
        match record.files.iter().find(|file| !KINDS.contains(&file.folder.as_str())) {
            Some(file) => Err(damaged(format!("it names a file in {:?}", file.folder))),
            None => Ok(Some(record)),
        }
    }

    /// The commit record of a shard if the shard counts: the record is of this run and of this shard, and its files
    /// have the sizes it names.
    ///
    /// # Errors
    /// [`RunError::Damaged`] with what is not as the manifest has it, and what
    /// [`check_sizes`](CommitRecord::check_sizes) says.
    pub fn committed(&self, manifest: &Manifest, shard: &Shard) -> Result<Option<CommitRecord>, RunError> {
        let Some(record) = self.commit(&shard.name)? else { return Ok(None) };
        if let Some(what) = record.objection(manifest, shard) {
            return Err(RunError::Damaged { path: self.commit_path(&shard.name), what });
        }
        record.check_sizes(self)?;
        Ok(Some(record))
    }
}

/// JSON as every file of a run has it: indented, with a newline at the end.
pub(crate) fn to_json<T: serde::Serialize>(value: &T) -> String {
    // Our own types with string keys always serialise; an empty file would be found at the next read.
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
}
