//! A shard counts from the moment its commit record has its name.
//!
//! Order: data durable under a temporary name, read back, renamed, folder synced; then the record likewise.
//! A crash between any two steps leaves either nothing that counts or everything.

use std::fs::File;
use std::path::{Path, PathBuf};

use moetrace_corpus::Sample;
use serde::{Deserialize, Serialize};

use crate::error::OnPath;
use crate::folder::to_json;
use crate::{Execution, Fs, Manifest, RunError, RunFolder, Shard, Usage};

/// The folders that hold a shard's files, in the order of its record.
pub(crate) const KINDS: [&str; 3] = ["data", "samples", "hidden"];

/// One committed file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommittedFile {
    /// `data`, `samples` or `hidden`.
    pub folder: String,
    /// Rows in it.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
    /// Hash of its bytes.
    pub blake3: String,
}

/// `state/commits/SHARD.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitRecord {
    /// The shard's name.
    pub shard: String,
    /// The plan it belongs to.
    pub plan_hash: String,
    /// Rows of its data file.
    pub rows: u64,
    /// Its first sample, counted in the data set's plan order.
    pub first: u64,
    /// Its samples.
    pub samples: u64,
    /// Hash of their ids and tokens: what went through the model.
    pub input_hash: String,
    /// Passes it took, without those of attempts that were given up.
    pub passes: u64,
    /// Times it began again with passes of half as many tokens, for want of memory. A shard that merely runs with
    /// what an earlier one was halved to has 0.
    pub halvings: u32,
    /// Its files.
    pub files: Vec<CommittedFile>,
    /// How it was carried out; the pass size is that of the attempt that was committed.
    pub execution: Execution,
    /// What it took, if anybody told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// The moetrace that wrote it.
    pub moetrace: String,
}

/// A file that is complete and durable under a temporary name.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) folder: &'static str,
    pub(crate) tmp: PathBuf,
    pub(crate) rows: u64,
}

/// Reads back, names and records the files of a shard.
pub(crate) fn commit(
    fs: &dyn Fs,
    folder: &RunFolder,
    shard: &Shard,
    finished: &[Finished],
    record: impl FnOnce(Vec<CommittedFile>) -> CommitRecord,
) -> Result<CommitRecord, RunError> {
    let mut files = Vec::new();
    for Finished { folder: kind, tmp, rows } in finished {
        let found = moetrace_trace::verify_footer(tmp)?;
        if found != *rows {
            return Err(RunError::Rows { path: tmp.clone(), found, expected: *rows });
        }
        let (bytes, blake3) = hash_file(tmp)?;
        files.push(CommittedFile { folder: (*kind).into(), rows: *rows, bytes, blake3 });
    }
    for Finished { folder: kind, tmp, .. } in finished {
        let to = folder.shard_path(kind, &shard.name);
        fs.rename_new(tmp, &to).on("cannot create", &to)?;
        folder.sync_parent(fs, &to)?;
    }
    let record = record(files);
    let to = folder.commit_path(&shard.name);
    folder.place_new(fs, &shard.name, &to, to_json(&record).as_bytes())?;
    Ok(record)
}

/// Removes what a shard without a commit record left behind; only the holder of its lock may. A shard with
/// a record is left alone: its files are no leftovers, even if the last sync of the commit failed.
pub(crate) fn remove_leftovers(fs: &dyn Fs, folder: &RunFolder, shard: &Shard) -> Result<(), RunError> {
    if folder.commit_path(&shard.name).exists() {
        return Ok(());
    }
    for kind in KINDS {
        let path = folder.shard_path(kind, &shard.name);
        fs.remove(&path).on("cannot remove", &path)?;
    }
    let mine = format!("{}.", shard.name);
    let tmp = folder.tmp();
    for entry in std::fs::read_dir(&tmp).on("cannot read", &tmp)?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(&mine) {
            fs.remove(&entry.path()).on("cannot remove", &entry.path())?;
        }
    }
    Ok(())
}

/// Takes a damaged shard's record back, so that the shard is to be done again.
pub(crate) fn uncommit(fs: &dyn Fs, folder: &RunFolder, shard: &Shard) -> Result<(), RunError> {
    let path = folder.commit_path(&shard.name);
    fs.remove(&path).on("cannot remove", &path)?;
    folder.sync_parent(fs, &path)
}

/// Hash of what goes through the model: each sample's id, number of tokens and tokens.
pub(crate) fn input_hash(samples: &[Sample]) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut bytes = Vec::new();
    for sample in samples {
        bytes.clear();
        bytes.extend(sample.id.0.to_le_bytes());
        bytes.extend((sample.tokens.len() as u64).to_le_bytes());
        bytes.extend(sample.tokens.iter().flat_map(|id| id.0.to_le_bytes()));
        hasher.update(&bytes);
    }
    hasher.finalize().to_hex().to_string()
}

/// Size and blake3 of a file.
pub(crate) fn hash_file(path: &Path) -> Result<(u64, String), RunError> {
    let mut file = File::open(path).on("cannot read", path)?;
    let mut hasher = blake3::Hasher::new();
    let bytes = std::io::copy(&mut file, &mut hasher).on("cannot read", path)?;
    Ok((bytes, hasher.finalize().to_hex().to_string()))
}

impl CommitRecord {
    /// What about the record is not as this run has it, if anything: records are files, which can be copied from
    /// other runs and written by others.
    pub(crate) fn objection(&self, manifest: &Manifest, shard: &Shard) -> Option<String> {
        let said = |what: &str, found: &dyn std::fmt::Display, expected: &dyn std::fmt::Display| {
            Some(format!("its {what} is {found}, expected {expected}"))
        };
        if self.plan_hash != manifest.plan_hash {
            return said("plan_hash", &self.plan_hash, &manifest.plan_hash);
        }
        for (what, found, expected) in [
            ("first sample", self.first, shard.first as u64),
            ("number of samples", self.samples, shard.samples as u64),
            ("number of rows", self.rows, shard.tokens),
        ] {
            if found != expected {
                return said(what, &found, &expected);
            }
        }
        let kinds: Vec<&str> = self.files.iter().map(|f| f.folder.as_str()).collect();
        let expected = if manifest.has_hidden() { &KINDS[..] } else { &KINDS[..2] };
        if kinds != expected {
            return said("list of files", &kinds.join(", "), &expected.join(", "));
        }
        let rows = [shard.tokens, shard.samples as u64, manifest.hidden_rows(shard)];
        let differs = self.files.iter().zip(rows).find(|(file, rows)| file.rows != *rows);
        differs.and_then(|(file, rows)| said(&format!("rows of {}", file.folder), &file.rows, &rows))
    }

    /// Whether every file is there with the size the record names.
    ///
    /// # Errors
    /// [`RunError::Missing`], [`RunError::Size`] or [`RunError::Io`] with the first file that is not.
    pub fn check_sizes(&self, folder: &RunFolder) -> Result<(), RunError> {
        for file in &self.files {
            let path = folder.shard_path(&file.folder, &self.shard);
            let found = match std::fs::metadata(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    return Err(RunError::Missing { path, expected: file.bytes });
                }
                other => other.on("cannot read", &path)?.len(),
            };
            if found != file.bytes {
                return Err(RunError::Size { path, found, expected: file.bytes });
            }
        }
        Ok(())
    }

    /// Whether every file's bytes are those that were committed.
    ///
    /// # Errors
    /// [`RunError::Hash`] or [`RunError::Io`] with the first file that is not.
    pub fn check_hashes(&self, folder: &RunFolder) -> Result<(), RunError> {
        for file in &self.files {
            let path = folder.shard_path(&file.folder, &self.shard);
            let (bytes, found) = hash_file(&path)?;
            if bytes != file.bytes {
                return Err(RunError::Size { path, found: bytes, expected: file.bytes });
            }
            if found != file.blake3 {
                return Err(RunError::Hash { path, found, expected: file.blake3.clone() });
            }
        }
        Ok(())
    }

    /// Bytes over all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.bytes))
    }
}
