//! A download in the making: a file beside the blobs with a name of its own, locked by who writes it, and taken over
//! by the next attempt once that one is gone.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use crate::cache::RepoCache;
use crate::check::Hasher;
use crate::write::{UNFINISHED, beside, create_parent};
use crate::{FileHash, HubError, RepoFile};

/// The bytes so far, their hash so far, and the `ETag` they came with.
pub(crate) struct Partial {
    path: PathBuf,
    file: File,
    hasher: Hasher,
    kind: FileHash,
    bytes: u64,
    have: u64,
    validator: Option<String>,
    restarts: u32,
}

impl Partial {
    /// The longest download of this file that was broken off, if nobody is at work on it; else a new one. Without
    /// locks (some network file systems) nothing is taken over: two writers in one file would be worse than a second
    /// download.
    pub(crate) fn open(cache: &RepoCache, file: &RepoFile, hash: &FileHash) -> Result<Self, HubError> {
        let blob = cache.blob(hash);
        create_parent(&blob)?;
        for path in broken_off(&cache.blobs(), hash) {
            if let Some(partial) = Self::adopt(path, file, hash)? {
                return Ok(partial);
            }
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        let new = beside(&blob, |path| options.open(path));
        let (path, new) = new.map_err(HubError::io("create beside", &blob))?;
        // Where there are no locks nobody adopts either.
        let _ = new.try_lock();
        let hasher = Hasher::new(hash, file.bytes);
        Ok(Self {
            path,
            file: new,
            hasher,
            kind: hash.clone(),
            bytes: file.bytes,
            have: 0,
            validator: None,
            restarts: 0,
        })
    }

    fn adopt(path: PathBuf, listed: &RepoFile, hash: &FileHash) -> Result<Option<Self>, HubError> {
        let Ok(file) = OpenOptions::new().read(true).write(true).open(&path) else { return Ok(None) };
        if file.try_lock().is_err() {
            return Ok(None);
        }
        let have = file.metadata().map_err(HubError::io("open", &path))?.len();
        let mut hasher = Hasher::new(hash, listed.bytes);
        hasher.update_from(&path).map_err(HubError::io("read", &path))?;
        let validator = fs::read_to_string(validator_file(&path)).ok().filter(|text| is_validator(text));
        let bytes = listed.bytes;
        let mut partial =
            Self { path, file, hasher, kind: hash.clone(), bytes, have, validator, restarts: 0 };
        if have > bytes {
            partial.begin_again()?;
        } else {
            partial.file.seek(SeekFrom::End(0)).map_err(HubError::io("read", &partial.path))?;
        }
        Ok(Some(partial))
    }

    /// Bytes that are there.
    pub(crate) fn have(&self) -> u64 {
        self.have
    }

    /// How often bytes were given up.
    pub(crate) fn restarts(&self) -> u32 {
        self.restarts
    }

    /// What the bytes came with, for `If-Range`.
    pub(crate) fn validator(&self) -> Option<&str> {
        self.validator.as_deref()
    }

    /// Forgets all bytes.
    pub(crate) fn begin_again(&mut self) -> Result<(), HubError> {
        let emptied = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        emptied.map_err(HubError::io("write", &self.path))?;
        self.hasher = Hasher::new(&self.kind, self.bytes);
        self.restarts += u32::from(self.have > 0);
        (self.have, self.validator) = (0, None);
        let _ = fs::remove_file(validator_file(&self.path));
        Ok(())
    }

    /// Remembers a strong `ETag`, which says whether later bytes belong to those that are here.
    pub(crate) fn came_with(&mut self, etag: Option<&str>) {
        self.validator = etag.filter(|text| is_validator(text)).map(str::to_owned);
        if let Some(validator) = &self.validator {
            // Lost, it costs a look at the hash of the whole; kept, a wrong half is noticed before it is fetched.
            let _ = fs::write(validator_file(&self.path), validator);
        }
    }

    /// Adds bytes.
    pub(crate) fn add(&mut self, bytes: &[u8]) -> Result<(), HubError> {
        self.file.write_all(bytes).map_err(HubError::io("write", &self.path))?;
        self.hasher.update(bytes);
        self.have += bytes.len() as u64;
        Ok(())
    }

    /// The hash of what is there.
    pub(crate) fn hash(&self) -> FileHash {
        self.hasher.clone().finish()
    }

    /// Gives the file its final name, bytes and name on disk before anybody relies on them.
    pub(crate) fn commit(self, blob: &Path) -> Result<(), HubError> {
        self.file.sync_all().map_err(HubError::io("write", &self.path))?;
        fs::rename(&self.path, blob).map_err(HubError::io("rename", &self.path))?;
        let _ = fs::remove_file(validator_file(&self.path));
        let folder = blob.parent().unwrap_or(blob);
        // What other attempts left behind is of no use any more.
        for path in broken_off(folder, &self.kind) {
            if File::open(&path).is_ok_and(|file| file.try_lock().is_ok()) {
                let _ = fs::remove_file(validator_file(&path));
                let _ = fs::remove_file(path);
            }
        }
        sync_folder(folder).map_err(HubError::io("write", folder))
    }

    /// Removes the file: its bytes are of no use.
    pub(crate) fn discard(self) {
        let _ = fs::remove_file(validator_file(&self.path));
        let _ = fs::remove_file(&self.path);
    }
}

/// Bytes of a file that an earlier attempt has left.
pub(crate) fn left_over(cache: &RepoCache, hash: &FileHash) -> u64 {
    let first = broken_off(&cache.blobs(), hash).into_iter().next();
    first.and_then(|path| fs::metadata(path).ok()).map_or(0, |about| about.len())
}

/// Downloads of a hash that were begun, the longest first. Links are none: what they lead to is not ours to write.
fn broken_off(blobs: &Path, hash: &FileHash) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(blobs) else { return Vec::new() };
    let mut found: Vec<(u64, PathBuf)> = Vec::new();
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        // Python's unfinished files end in `.incomplete` alone; they need not be filled from their beginning.
        let is_ours = name.starts_with(hash.hex()) && name.ends_with(UNFINISHED);
        if let Some(about) = entry.metadata().ok().filter(|about| is_ours && about.is_file()) {
            found.push((about.len(), entry.path()));
        }
    }
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, path)| path).collect()
}

fn validator_file(path: &Path) -> PathBuf {
    path.with_extension("etag")
}

/// A strong entity tag: weak ones do not say that bytes are equal.
fn is_validator(text: &str) -> bool {
    text.len() <= 256
        && text.starts_with('"')
        && text.ends_with('"')
        && text.bytes().all(|b| b.is_ascii_graphic())
}

/// A name is on disk once its folder is.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}
