//! Where a run keeps what.

use std::path::{Path, PathBuf};

use crate::error::OnPath;
use crate::manifest::MANIFEST_VERSION;
use crate::{CommitRecord, Fs, Manifest, Plan, ResolvedSetting, RunError};

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

    /// The commit record of a shard.
    pub fn commit_path(&self, shard: &str) -> PathBuf {
        self.root.join("state/commits").join(format!("{shard}.json"))
    }

    pub(crate) fn lock_path(&self, shard: &str) -> PathBuf {
        self.root.join("state/locks").join(format!("{shard}.lock"))
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
    /// [`RunError::NotARun`] without one, [`RunError::Damaged`] if it does not parse or is newer than this
    /// program.
    pub fn manifest(&self) -> Result<Manifest, RunError> {
        let path = self.manifest_path();
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
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
        // Names become paths: one from a foreign manifest must not leave the folder.
        match manifest.shards.iter().find(|s| s.name.contains(['/', '\\', '\0']) || s.name.starts_with('.')) {
            Some(shard) => Err(damaged(format!("shard name {:?} is no file name", shard.name))),
            None => Ok(manifest),
        }
    }

    /// Whether a run has begun here.
    pub fn has_manifest(&self) -> bool {
        self.manifest_path().is_file()
    }

    /// Begins the run or continues it, whichever the folder asks for.
    ///
    /// # Errors
    /// [`RunError::OtherSettings`] if the folder holds a run of another plan, [`RunError::ForeignFolder`] if
    /// it holds something else.
    pub fn open(
        &self,
        fs: &dyn Fs,
        plan: &Plan,
        settings: Vec<ResolvedSetting>,
    ) -> Result<Manifest, RunError> {
        if !self.has_manifest() {
            self.refuse_foreign()?;
            for folder in ["data", "samples", "state/commits", "state/locks", "tmp"] {
                let path = self.root.join(folder);
                fs.create_dir(&path).on("cannot create", &path)?;
            }
            if plan.content.columns.hidden {
                let path = self.root.join("hidden");
                fs.create_dir(&path).on("cannot create", &path)?;
            }
            let text = to_json(&Manifest::new(plan, settings));
            match self.place_new(fs, "manifest.json", &self.manifest_path(), text.as_bytes()) {
                // Another process began the same folder between our look and our write: its manifest rules.
                Err(RunError::Io { source, .. }) if source.kind() == std::io::ErrorKind::AlreadyExists => {}
                other => other?,
            }
        }
        let manifest = self.manifest()?;
        let differences = manifest.differences(plan);
        if differences.is_empty() {
            Ok(manifest)
        } else {
            Err(RunError::OtherSettings { path: self.root.clone(), differences })
        }
    }

    fn refuse_foreign(&self) -> Result<(), RunError> {
        let Ok(entries) = std::fs::read_dir(&self.root) else { return Ok(()) };
        let ours = ["data", "samples", "hidden", "state", "tmp"];
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !ours.contains(&name.as_str()) {
                return Err(RunError::ForeignFolder { path: self.root.clone(), found: name });
            }
        }
        Ok(())
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
            // What is left behind in tmp would be removed by the next run; try now all the same.
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
        fs.rename_over(&tmp, to).on("cannot write", to)?;
        self.sync_parent(fs, to)
    }

    fn write_tmp(&self, fs: &dyn Fs, name: &str, bytes: &[u8]) -> Result<PathBuf, RunError> {
        let tmp = self.tmp_path(name);
        let written = fs.create_new(&tmp).and_then(|mut file| {
            file.write_all(bytes)?;
            file.flush()?;
            file.sync()
        });
        if written.is_err() {
            let _ = fs.remove(&tmp);
        }
        written.on("cannot write", &tmp)?;
        Ok(tmp)
    }

    /// A name in `tmp` that no other process and no earlier attempt of this one uses.
    pub(crate) fn tmp_path(&self, name: &str) -> PathBuf {
        use std::sync::atomic::{AtomicU64, Ordering};
        static ATTEMPT: AtomicU64 = AtomicU64::new(0);
        let attempt = ATTEMPT.fetch_add(1, Ordering::Relaxed);
        self.tmp().join(format!("{name}.{}.{attempt}.part", std::process::id()))
    }

    pub(crate) fn sync_parent(&self, fs: &dyn Fs, path: &Path) -> Result<(), RunError> {
        let parent = path.parent().unwrap_or(&self.root);
        fs.sync_dir(parent).on("cannot sync", parent)
    }

    /// The commit record of a shard, if it has one.
    ///
    /// # Errors
    /// [`RunError::Damaged`] if it does not parse.
    pub fn commit(&self, shard: &str) -> Result<Option<CommitRecord>, RunError> {
        let path = self.commit_path(shard);
        match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            other => {
                let bytes = other.on("cannot read", &path)?;
                let record = serde_json::from_slice(&bytes);
                record.map(Some).map_err(|e| RunError::Damaged { path, what: e.to_string() })
            }
        }
    }
}

/// JSON as every file of a run has it: indented, with a newline at the end.
pub(crate) fn to_json<T: serde::Serialize>(value: &T) -> String {
    // Our own types with string keys always serialise; an empty file would be found at the next read.
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
}
