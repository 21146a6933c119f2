//! Files of several repositories that a run needs: which are missing, the download, and its progress.

use std::rc::Rc;
use std::time::Instant;

use indicatif::ProgressBar;
use moetrace_hub::{Hub, HubEvent, RepoFile, RepoKind, Snapshot};
use moetrace_run::{HubFacts, HubFileFacts};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::progress::Progress;
use crate::show;

/// The files of one repository that are needed.
#[derive(Debug, Clone)]
pub(crate) struct Download {
    /// The repository at its commit.
    pub(crate) snapshot: Snapshot,
    /// What of it.
    pub(crate) files: Vec<RepoFile>,
}

impl Download {
    /// What the manifest says of it.
    pub(crate) fn facts(&self, licences: &[String]) -> HubFacts {
        let address = &self.snapshot.subject.address;
        let file = |file: &RepoFile| HubFileFacts {
            path: file.path.clone(),
            bytes: file.bytes,
            hash: file.hash.as_ref().map(ToString::to_string),
        };
        HubFacts {
            repo: address.id.to_string(),
            revision: address.revision.to_string(),
            commit: self.snapshot.commit.to_string(),
            licences: licences.to_vec(),
            files: self.files.iter().map(file).collect(),
        }
    }

    /// Brings the files into the cache.
    pub(crate) fn fetch(&self, hub: &Hub, progress: &mut Progress) -> Result<(), Failure> {
        let mut shown = Shown::default();
        hub.fetch(&self.snapshot, &self.wanted(), &mut |event| shown.event(event, progress))?;
        Ok(())
    }

    fn wanted(&self) -> Vec<&RepoFile> {
        self.files.iter().collect()
    }
}

/// Everything that a run needs of the Hub.
pub(crate) struct Downloads {
    pub(crate) hub: Rc<Hub>,
    pub(crate) parts: Vec<Download>,
}

impl Downloads {
    /// Bytes that the cache lacks.
    pub(crate) fn missing(&self) -> u64 {
        self.missing_of(|_| true)
    }

    /// Bytes that the cache lacks of data sets.
    pub(crate) fn missing_texts(&self) -> u64 {
        self.missing_of(|kind| kind == RepoKind::Dataset)
    }

    fn missing_of(&self, is_wanted: fn(RepoKind) -> bool) -> u64 {
        let parts = self.parts.iter().filter(|part| is_wanted(part.snapshot.subject.address.kind));
        let of = |part: &Download| self.hub.missing_bytes(&part.snapshot, &part.wanted());
        parts.map(of).fold(0, u64::saturating_add)
    }

    /// Whether none of it can be downloaded.
    pub(crate) fn is_offline(&self) -> bool {
        self.hub.settings().offline
    }

    /// Bytes of a model's weights, if the cache lacks any of their files.
    pub(crate) fn missing_weights(&self, model: &Download) -> Option<u64> {
        let weights = model.files.iter().filter(|file| file.path.ends_with(".safetensors"));
        let is_missing = weights.clone().any(|file| !self.hub.has(&model.snapshot, file));
        is_missing.then(|| weights.map(|file| file.bytes).fold(0, u64::saturating_add))
    }

    /// Gives files that the cache has their names in this commit, where another commit brought them.
    pub(crate) fn link(&self, progress: &mut Progress) -> Result<(), Failure> {
        for part in &self.parts {
            let is_whole = part.files.iter().all(|file| self.hub.has(&part.snapshot, file));
            let is_linked = || part.files.iter().all(|file| part.snapshot.folder.join(&file.path).exists());
            if is_whole && !is_linked() {
                part.fetch(&self.hub, progress)?;
            }
        }
        Ok(())
    }

    /// Downloads what is missing. Space for all of it is asked for first, so that a disk that cannot hold the last
    /// repository is known before the first. Data sets come before models, `texts_are_here` between them.
    pub(crate) fn fetch(
        &self,
        progress: &mut Progress,
        texts_are_here: &dyn Fn() -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        // Offline what is missing is an error of its own, whatever room there is.
        let need = if self.hub.settings().offline { 0 } else { self.missing() };
        self.hub.room_for(need)?;
        if need > 0 {
            progress.line(&format!("downloading {} from {}", show::bytes(need), self.hub.endpoint()));
        }
        let of = |kind| self.parts.iter().filter(move |part| part.snapshot.subject.address.kind == kind);
        for part in of(RepoKind::Dataset) {
            part.fetch(&self.hub, progress)?;
        }
        texts_are_here()?;
        for part in of(RepoKind::Model) {
            part.fetch(&self.hub, progress)?;
        }
        Ok(())
    }

    /// What would be downloaded, for machines.
    pub(crate) fn json(&self) -> Value {
        let part = |part: &Download| {
            let file = |file: &RepoFile| {
                json!({
                    "path": file.path,
                    "bytes": file.bytes,
                    "hash": file.hash.as_ref().map(ToString::to_string),
                    "cached": self.hub.has(&part.snapshot, file),
                })
            };
            let address = &part.snapshot.subject.address;
            json!({
                "kind": if address.kind == RepoKind::Model { "model" } else { "dataset" },
                "repo": address.id.to_string(),
                "revision": address.revision.to_string(),
                "commit": part.snapshot.commit.to_string(),
                "files": part.files.iter().map(file).collect::<Vec<_>>(),
            })
        };
        json!({
            "bytes": self.missing(),
            "free_bytes": self.hub.free_bytes(),
            "repositories": self.parts.iter().map(part).collect::<Vec<_>>(),
        })
    }
}

/// A file that is on its way.
#[derive(Default)]
struct Shown {
    bar: Option<ProgressBar>,
    begun: Option<Instant>,
    bytes: u64,
    had: u64,
}

/// Files below this size come and go without a line.
const WORTH_A_LINE: u64 = 10_000_000;

impl Shown {
    fn event(&mut self, event: &HubEvent<'_>, progress: &mut Progress) {
        match event {
            HubEvent::Waiting { file } => {
                progress.line(&format!("{file}: another process downloads it; waiting"));
            }
            HubEvent::Checking { file, bytes } if *bytes >= WORTH_A_LINE => {
                progress.line(&format!("{file}: in the cache, and compared with its hash once"));
            }
            HubEvent::Spoilt { file } => {
                progress.line(&format!("{file}: spoilt in the cache; downloading it again"));
            }
            HubEvent::Begun { file, bytes, have } => {
                let bar =
                    (*bytes >= WORTH_A_LINE).then(|| progress.bar_of_bytes(file, *bytes, *have)).flatten();
                *self = Self { bar, begun: Some(Instant::now()), bytes: *bytes, had: *have };
                if *have > 0 {
                    let (have, bytes) = (show::bytes(*have), show::bytes(*bytes));
                    progress.line(&format!("{file}: {have} of {bytes} are there, going on"));
                }
            }
            HubEvent::Received { file, have } => match &self.bar {
                Some(bar) => bar.set_position(*have),
                None => progress.now_and_then(&self.line(file, *have)),
            },
            HubEvent::Again { file, why, pause } => {
                progress.line(&format!("{file}: {why}; again in {:.0} s", pause.as_secs_f64()));
            }
            HubEvent::Done { file } => {
                if let Some(bar) = self.bar.take() {
                    bar.finish_and_clear();
                }
                if self.bytes >= WORTH_A_LINE {
                    progress.line(&format!("{}, checked", self.line(file, self.bytes)));
                }
            }
            _ => {}
        }
    }

    /// How far a file is, and how fast it comes.
    fn line(&self, file: &str, have: u64) -> String {
        let seconds = self.begun.map_or(0.0, |begun| begun.elapsed().as_secs_f64());
        let rate = if seconds > 0.0 { (have.saturating_sub(self.had) as f64 / seconds) as u64 } else { 0 };
        format!("{file}: {} of {}, {}/s", show::bytes(have), show::bytes(self.bytes), show::bytes(rate))
    }
}
