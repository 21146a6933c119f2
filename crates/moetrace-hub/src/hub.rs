//! The client: a name becomes a snapshot, a snapshot's files become a folder.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;

use crate::api::{self, Account};
use crate::cache::RepoCache;
use crate::disk::{DISK_RESERVE, free_bytes};
use crate::download::Download;
use crate::event::Listener;
use crate::http::Http;
use crate::partial::left_over;
use crate::saved::SavedListing;
use crate::{Commit, FileHash, HubError, HubEvent, HubSettings, RepoAddress, RepoFile, Subject};

/// A client of the Hub with its cache.
pub struct Hub {
    settings: HubSettings,
    http: Http,
}

/// A repository at one commit.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// What was asked for.
    pub subject: Arc<Subject>,
    /// What it is.
    pub commit: Commit,
    /// Its files in name order.
    pub files: Vec<RepoFile>,
    /// The cache, if there was nothing but its links to tell which files there are: offline, after another program put
    /// them there. The commit may have more.
    pub partial_in: Option<PathBuf>,
    /// The licences that its card names; then unknown.
    pub licences: Vec<String>,
    /// Where its files are, or will be.
    pub folder: PathBuf,
}

impl Snapshot {
    /// A file by its path.
    pub fn file(&self, path: &str) -> Option<&RepoFile> {
        self.files.iter().find(|file| file.path == path)
    }

    /// Why something is missing: `why`, or that the cache lacks it, where the commit may have it.
    pub(crate) fn lacks(&self, what: &str, why: HubError) -> HubError {
        let offline = |cache: &PathBuf| {
            let (subject, what, cache) = (self.subject.clone(), what.to_owned(), cache.clone());
            HubError::Offline { subject, what, cache }
        };
        self.partial_in.as_ref().map_or(why, offline)
    }
}

impl Hub {
    /// A client; nothing is opened yet.
    ///
    /// # Errors
    /// [`HubError::Setting`] for an endpoint, a proxy or certificates that cannot be.
    pub fn new(settings: HubSettings) -> Result<Self, HubError> {
        Ok(Self { http: Http::new(&settings)?, settings })
    }

    /// The settings it was made with.
    pub fn settings(&self) -> &HubSettings {
        &self.settings
    }

    /// The endpoint as it may be shown, without user and password.
    pub fn endpoint(&self) -> String {
        self.http.endpoint()
    }

    /// The page of a repository.
    fn subject(&self, address: &RepoAddress) -> Arc<Subject> {
        let page = format!("{}/{}", self.http.endpoint(), address.page());
        Arc::new(Subject { address: address.clone(), page, token: self.http.token_source() })
    }

    pub(crate) fn download<'a>(&'a self, snapshot: &'a Snapshot, cache: &'a RepoCache) -> Download<'a> {
        Download { http: &self.http, cache, subject: &snapshot.subject, commit: &snapshot.commit }
    }

    pub(crate) fn cache(&self, address: &RepoAddress) -> RepoCache {
        RepoCache::new(&self.settings.cache, address)
    }

    /// Resolves a revision to a commit, once, and lists its files. Whatever follows is of that commit. Offline both come
    /// from the cache.
    ///
    /// # Errors
    /// [`HubError::NoRepo`] with similar names, [`HubError::NoRevision`], [`HubError::Gated`], [`HubError::BadToken`],
    /// [`HubError::Unreachable`], which says whether the cache could help, [`HubError::Offline`],
    /// [`HubError::UnsafeName`], and answers that are none of the Hub's.
    pub fn snapshot(&self, address: &RepoAddress) -> Result<Snapshot, HubError> {
        let (subject, cache) = (self.subject(address), self.cache(address));
        if self.settings.offline {
            let Some(commit) = cache.resolved(&address.revision) else {
                return Err(self.missing(subject, "the revision".to_owned()));
            };
            // Links are looked at even where the list is known: none of them may lead out of the cache.
            let there = cache.listed(&commit)?;
            let saved = SavedListing::read(&cache, &commit);
            let partial_in = saved.is_none().then(|| self.settings.cache.clone());
            let saved = saved.unwrap_or(SavedListing { files: there, licences: Vec::new() });
            let (SavedListing { files, licences }, folder) = (saved, cache.snapshot(&commit));
            return Ok(Snapshot { subject, commit, files, partial_in, licences, folder });
        }
        let info = api::info(&self.http, &subject).map_err(|error| match error {
            HubError::Unreachable { host, why, proxy, .. } => {
                let cached = cache.resolved(&address.revision).is_some();
                HubError::Unreachable { host, why, proxy, cached }
            }
            other => other,
        })?;
        let files = api::tree(&self.http, &subject, &info.commit)?;
        let folder = cache.snapshot(&info.commit);
        let (commit, licences) = (info.commit, info.licences);
        Ok(Snapshot { subject, commit, files, partial_in: None, licences, folder })
    }

    /// Whether a file lies in the cache at its full length.
    pub fn has(&self, snapshot: &Snapshot, file: &RepoFile) -> bool {
        self.cache(&snapshot.subject.address).has(&snapshot.commit, file)
    }

    /// Bytes that are to be downloaded for these files: those that the cache has, or has begun, do not count.
    pub fn missing_bytes(&self, snapshot: &Snapshot, files: &[&RepoFile]) -> u64 {
        let cache = self.cache(&snapshot.subject.address);
        let missing = files.iter().filter(|file| !cache.has(&snapshot.commit, file));
        let rest = |file: &&&RepoFile| {
            let begun = file.hash.as_ref().map_or(0, |hash| left_over(&cache, hash));
            file.bytes.saturating_sub(begun)
        };
        missing.map(|file| rest(&file)).fold(0, u64::saturating_add)
    }

    /// Bytes free on the cache's disk, where the system says.
    pub fn free_bytes(&self) -> Option<u64> {
        free_bytes(&self.settings.cache)
    }

    /// Brings files into the snapshot's folder, each checked: what is downloaded, while it comes; what the cache has, when
    /// it is first used, and again if it changed. That is not asked for.
    ///
    /// # Errors
    /// [`HubError::Disk`] before a byte is downloaded; [`HubError::Offline`] naming the first file that is missing;
    /// [`HubError::Interrupted`], after which the next call goes on; [`HubError::Hash`] and [`HubError::Length`] for
    /// bytes that are not the file's, of which nothing stays; offline [`HubError::Spoilt`] for such bytes in the cache;
    /// [`HubError::Linked`] for a folder of the cache that leads out of it.
    pub fn fetch(
        &self,
        snapshot: &Snapshot,
        files: &[&RepoFile],
        listener: Listener<'_>,
    ) -> Result<(), HubError> {
        let cache = self.cache(&snapshot.subject.address);
        let (subject, commit) = (&snapshot.subject, &snapshot.commit);
        cache.is_inside(commit)?;
        let mut wanted = Vec::new();
        for file in files {
            if !self.is_there(snapshot, &cache, file, listener)? {
                let hash = file.hash.as_ref().filter(|_| !self.settings.offline);
                let hash = hash.ok_or_else(|| self.missing(subject.clone(), file.path.clone()))?;
                wanted.push((*file, hash));
            }
        }
        let rest =
            |(file, hash): &(&RepoFile, &FileHash)| file.bytes - left_over(&cache, hash).min(file.bytes);
        self.room_for(wanted.iter().map(rest).fold(0, u64::saturating_add))?;
        let download = self.download(snapshot, &cache);
        for (file, hash) in &wanted {
            download.run(file, hash, listener)?;
        }
        files.iter().try_for_each(|file| cache.link(commit, file))?;
        if self.settings.offline {
            return Ok(());
        }
        let saved = SavedListing { files: snapshot.files.clone(), licences: snapshot.licences.clone() };
        // Last, so that a revision in the cache leads to something.
        let kept =
            saved.keep(&cache, commit).and_then(|()| cache.remember(&subject.address.revision, commit));
        match kept {
            // Nothing was missing, so that a cache that is only read does as well: its next use asks the Hub again.
            Err(HubError::Io { source, .. }) if wanted.is_empty() && is_read_only(&source) => Ok(()),
            kept => kept,
        }
    }

    /// Whether the cache has a file, and its bytes are those that its hash says.
    fn is_there(
        &self,
        snapshot: &Snapshot,
        cache: &RepoCache,
        file: &RepoFile,
        listener: Listener<'_>,
    ) -> Result<bool, HubError> {
        let Some(path) = cache.found(&snapshot.commit, file) else { return Ok(false) };
        // Without a hash, as in a cache without links and lists, the length is all there is.
        let Some(hash) = &file.hash else { return Ok(true) };
        let mut reads = || listener(&HubEvent::Checking { file: &file.path, bytes: file.bytes });
        let is_sound = cache.is_sound(&path, hash, &mut reads)?;
        if !is_sound && self.settings.offline {
            return Err(HubError::Spoilt { path, hash: hash.to_string() });
        }
        if !is_sound {
            listener(&HubEvent::Spoilt { file: &file.path });
        }
        Ok(is_sound)
    }

    /// Whether so many bytes can be downloaded, and the reserve left.
    ///
    /// # Errors
    /// [`HubError::Disk`] if not. Where the system does not say what is free, all of it can.
    pub fn room_for(&self, need: u64) -> Result<(), HubError> {
        let full = self.free_bytes().filter(|free| need > 0 && need.saturating_add(DISK_RESERVE) > *free);
        let path = &self.settings.cache;
        full.map_or(Ok(()), |free| Err(HubError::Disk { path: path.clone(), need, free }))
    }

    /// Who the token belongs to.
    ///
    /// # Errors
    /// [`HubError::BadToken`] if the Hub does not know it.
    pub fn whoami(&self) -> Result<Account, HubError> {
        api::whoami(&self.http)
    }

    pub(crate) fn missing(&self, subject: Arc<Subject>, what: String) -> HubError {
        HubError::Offline { subject, what, cache: self.settings.cache.clone() }
    }
}

fn is_read_only(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied)
}
