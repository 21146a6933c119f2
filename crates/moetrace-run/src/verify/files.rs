//! Files as bytes: sizes, hashes, what they say about themselves, and those that should not be there.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use moetrace_trace::{TraceError, read_metadata};

use super::{FaultKind, Place, Verifying, shard_file};
use crate::commit::{KINDS, hash_file};
use crate::{CommitRecord, RunError, Shard};

impl Verifying<'_> {
    /// Sizes and hashes of a shard's files.
    pub(super) fn files(&mut self, record: &CommitRecord) {
        for file in &record.files {
            let path = self.folder.shard_path(&file.folder, &record.shard);
            let name = Path::new(&file.folder).join(format!("{}.parquet", record.shard));
            match hash_file(&path) {
                Ok((bytes, hash)) => {
                    self.out.files += 1;
                    self.out.bytes += bytes;
                    if bytes != file.bytes {
                        let what = format!("it holds {bytes} bytes, {} were committed", file.bytes);
                        self.faults.of_file(FaultKind::Size, &name, what);
                    } else if hash != file.blake3 {
                        let what = format!("its blake3 is {hash}, committed as {}", file.blake3);
                        self.faults.of_file(FaultKind::Hash, &name, what);
                    }
                }
                Err(RunError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                    let what = format!("it is missing, {} bytes were committed", file.bytes);
                    self.faults.of_file(FaultKind::Missing, &name, what);
                }
                Err(error) => {
                    let what = self.below(&error);
                    self.faults.of_file(FaultKind::Unreadable, &name, what);
                }
            }
        }
    }

    /// Whether a shard's file is there. Where it is not, its record has been reported already.
    pub(super) fn is_there(&self, kind: &str, shard: &Shard) -> bool {
        self.folder.shard_path(kind, &shard.name).exists()
    }

    /// Compares the keys of a shard's file with the manifest.
    pub(super) fn metadata(&mut self, shard: &Shard, kind: &str) {
        if !self.is_there(kind, shard) {
            return;
        }
        match read_metadata(&self.folder.shard_path(kind, &shard.name)) {
            Ok(found) => self.keys(shard, kind, &found),
            Err(error) => self.unreadable(&shard_file(kind, shard), &error),
        }
    }

    pub(super) fn keys(&mut self, shard: &Shard, kind: &str, found: &BTreeMap<String, String>) {
        let model = &self.manifest.model;
        let dataset = self.manifest.datasets.get(shard.dataset).map_or("", |dataset| &dataset.name);
        let table = if kind == "data" { "tokens" } else { kind };
        for (key, expected) in [
            ("table", table),
            ("dataset", dataset),
            ("plan_hash", &self.manifest.plan_hash),
            ("precision", &model.precision),
            ("router_dtype", &model.router_dtype),
        ] {
            let value = found.get(key).map_or("missing", String::as_str);
            if value != expected {
                self.faults.add(FaultKind::Metadata, || {
                    let what = format!("`moetrace.{key}` is {value}, the manifest says {expected}");
                    (Place::file(shard_file(kind, shard)), what)
                });
            }
        }
    }

    /// A file that cannot be opened or decoded.
    pub(super) fn unreadable(&mut self, file: &Path, error: &TraceError) {
        let (kind, what, row) = self.refusal(file, error);
        self.faults.add(kind, || (Place { row, ..Place::file(file) }, what));
    }

    /// What kind of fault it is that a file or a column was refused, in words, and from which row on.
    pub(super) fn refusal(&self, file: &Path, error: &TraceError) -> (FaultKind, String, Option<u64>) {
        let (kind, row) = kind_of(error);
        // The place says which file it is.
        (kind, self.below(error).replacen(&format!("{}: ", file.display()), "", 1), row)
    }

    /// Files of no shard: whoever reads `data/*.parquet` takes them for the run's.
    pub(super) fn strays(&mut self) {
        let shards: HashSet<&str> = self.manifest.shards.iter().map(|shard| shard.name.as_str()).collect();
        let folders = KINDS.map(|kind| (kind, ".parquet")).into_iter().chain([("state/commits", ".json")]);
        for (folder, suffix) in folders {
            let Ok(entries) = std::fs::read_dir(self.folder.root().join(folder)) else { continue };
            let mut names: Vec<String> =
                entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            let is_recorded = folder != "hidden" || self.manifest.has_hidden();
            let ours = |name: &String| {
                is_recorded && name.strip_suffix(suffix).is_some_and(|shard| shards.contains(shard))
            };
            for name in names.iter().filter(|name| !ours(name)) {
                let what = "it belongs to no shard of the manifest";
                self.faults.of_file(FaultKind::Stray, &Path::new(folder).join(name), what);
            }
        }
    }
}

fn kind_of(error: &TraceError) -> (FaultKind, Option<u64>) {
    match error {
        TraceError::Damaged { row, .. } => (FaultKind::Unreadable, Some(*row)),
        TraceError::Null { row, .. } => (FaultKind::EmptyCell, Some(*row)),
        TraceError::Metadata { .. } => (FaultKind::Metadata, None),
        TraceError::Column { column, found, .. } if column.starts_with("experts_") && found == "missing" => {
            (FaultKind::MissingLayer, None)
        }
        TraceError::Column { .. } => (FaultKind::Column, None),
        _ => (FaultKind::Unreadable, None),
    }
}
