//! Beginning a run, continuing it, and setting it aside.

use std::path::Path;

use crate::error::OnPath;
use crate::folder::to_json;
use crate::lock::{Lock, is_read_only, lock_run, share_run, writer_of};
use crate::{Fs, Manifest, Plan, ResolvedSetting, RunError, RunFolder};

impl RunFolder {
    /// The run here, if it is the plan's; `None` if nothing has begun. Nothing is changed.
    ///
    /// # Errors
    /// [`RunError::OtherSettings`] if the folder holds a run of another plan, [`RunError::Damaged`] if its manifest
    /// is lost or not what began the run, [`RunError::ForeignFolder`] if the folder holds something else.
    pub fn check(&self, plan: &Plan) -> Result<Option<Manifest>, RunError> {
        // Looked for before the manifest, which is there before the first commit.
        let committed = self.has_commits();
        if !self.has_manifest() {
            if committed {
                let what = "it is missing, but shards are committed".into();
                return Err(RunError::Damaged { path: self.manifest_path(), what });
            }
            match self.refuse_foreign() {
                // Another process began the run between our two looks.
                Err(_) if self.has_manifest() => {}
                other => return other.map(|()| None),
            }
        }
        let manifest = self.manifest()?;
        let differences = manifest.differences(plan);
        if !differences.is_empty() {
            return Err(RunError::OtherSettings { path: self.root().into(), differences });
        }
        if manifest.shards != plan.shards {
            let what = "its shards are not those of its settings".into();
            return Err(RunError::Damaged { path: self.manifest_path(), what });
        }
        Ok(Some(manifest))
    }

    /// Begins the run or continues it, whichever the folder asks for. The lock says that somebody is at work.
    pub(crate) fn open(
        &self,
        fs: &dyn Fs,
        plan: &Plan,
        settings: &[ResolvedSetting],
    ) -> Result<(Manifest, Lock), RunError> {
        loop {
            let begun = self.check(plan)?.is_some();
            self.create_folders(fs, plan, begun)?;
            // A run that another process sets aside meanwhile is begun again under its old name.
            let Some(lock) = share_run(self, || self.remove_stale(fs))? else { continue };
            if let Some(manifest) = self.check(plan)? {
                return Ok((manifest, lock));
            }
            let text = to_json(&Manifest::new(plan, settings.to_vec()));
            match self.place_new(fs, "manifest.json", &self.manifest_path(), text.as_bytes()) {
                // Another process began the same folder between our look and our write: its manifest rules.
                Err(RunError::Io { source, .. }) if source.kind() == std::io::ErrorKind::AlreadyExists => {}
                other => other?,
            }
        }
    }

    /// Renames what has begun here to `aside`, so that it can begin again; says whether there was anything.
    ///
    /// # Errors
    /// [`RunError::Locked`] while another process is at work in it, and what the system says to the renaming.
    pub fn set_aside(&self, aside: &Path) -> Result<bool, RunError> {
        // A folder of others is refused when the run is begun.
        if !self.has_manifest() && !self.has_commits() {
            return Ok(false);
        }
        let rename = || std::fs::rename(self.root(), aside).on("cannot rename", self.root()).map(|()| true);
        if !self.run_lock_path().parent().is_some_and(Path::is_dir) {
            return rename();
        }
        let ours = lock_run(self);
        let writers = self.writers();
        let is_free = match &ours {
            Ok(ours) => ours.is_some(),
            // Where no lock can be made, nobody can work.
            Err(RunError::Io { source, .. }) => is_read_only(source),
            Err(_) => false,
        };
        if !is_free || !writers.is_empty() {
            ours?;
            let holder = writers.first().cloned().unwrap_or_else(|| "another process".into());
            return Err(RunError::Locked { path: self.root().into(), busy: writers.len(), holder });
        }
        rename()
    }

    /// Who writes shards now, by the locks that are there.
    fn writers(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.locks()) else { return Vec::new() };
        let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter_map(|name| writer_of(self, name.strip_suffix(".lock")?)).collect()
    }

    fn has_commits(&self) -> bool {
        std::fs::read_dir(self.commits()).is_ok_and(|mut entries| entries.next().is_some())
    }

    /// Every folder of a run: copies of a run may have lost the empty ones.
    fn create_folders(&self, fs: &dyn Fs, plan: &Plan, begun: bool) -> Result<(), RunError> {
        let hidden = plan.content.columns.hidden.then_some("hidden");
        for folder in ["data", "samples", "state/commits", "state/locks", "tmp"].into_iter().chain(hidden) {
            let path = self.root().join(folder);
            match fs.create_dir(&path) {
                // A read-only copy needs them only if something is to be written, which is then refused.
                Err(error) if begun && is_read_only(&error) => {}
                other => other.on("cannot create", &path)?,
            }
        }
        Ok(())
    }

    /// Removes what processes that are gone left in `tmp`; only with nobody at work. What cannot be removed stays.
    fn remove_stale(&self, fs: &dyn Fs) {
        let Ok(entries) = std::fs::read_dir(self.tmp()) else { return };
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.extension().is_some_and(|extension| extension == "part") {
                let _ = fs.remove(&path);
            }
        }
    }

    /// Refuses a folder that holds something else than a run, before there is a plan for one.
    ///
    /// # Errors
    /// [`RunError::ForeignFolder`].
    pub fn check_own(&self) -> Result<(), RunError> {
        if self.has_manifest() { Ok(()) } else { self.refuse_foreign() }
    }

    fn refuse_foreign(&self) -> Result<(), RunError> {
        let Ok(entries) = std::fs::read_dir(self.root()) else { return Ok(()) };
        let ours = ["data", "samples", "hidden", "state", "tmp"];
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !ours.contains(&name.as_str()) {
                return Err(RunError::ForeignFolder { path: self.root().into(), found: name });
            }
        }
        Ok(())
    }
}
