//! The folder that a checkpoint is written into, from its first file to its final name.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::shard::ShardFile;
use super::{Order, OutputTensor};
use crate::ModelError;
use crate::checkpoint::{tensor_bytes, tensor_names};

/// What an unfinished folder is to become; also its lock.
const PROGRESS: &str = "moetrace-partial.json";

/// `OUT.partial`, held by this process.
///
/// The list inside says whose it is: a folder without it is never written into.
pub(super) struct Partial {
    dir: PathBuf,
    /// Locked as long as it is open.
    _lock: File,
}

impl Partial {
    /// Creates the folder, or takes up one that has the same identity; one of another plan is begun anew. A
    /// folder of that name that no earlier call began, whatever it holds, is refused.
    pub(super) fn begin(order: &Order<'_>) -> Result<Self, ModelError> {
        let exists = || {
            let there = order.out.symlink_metadata().is_ok();
            if there { Err(ModelError::OutputExists { path: order.out.to_owned() }) } else { Ok(()) }
        };
        exists()?;
        let mut name = order.out.file_name().unwrap_or_default().to_owned();
        name.push(".partial");
        let dir = order.out.with_file_name(name);
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| ModelError::Write { path, source }
        };
        refuse_foreign(&dir)?;
        fs::create_dir_all(&dir).map_err(io(&dir))?;
        let path = dir.join(PROGRESS);
        let lock = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let mut lock = lock.map_err(io(&path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(ModelError::OutputBusy { path: dir }),
            Err(fs::TryLockError::Error(source)) => return Err(ModelError::Write { path, source }),
        }
        // Another call may have just finished: the folder that it locked has its final name now.
        exists()?;
        let text = format!("{:#}\n", order.identity);
        if fs::read_to_string(&path).map_err(io(&path))? != text {
            clear(&dir)?;
            lock.set_len(0).and_then(|()| lock.write_all(text.as_bytes())).map_err(io(&path))?;
            lock.sync_all().map_err(io(&path))?;
        }
        Ok(Self { dir, _lock: lock })
    }

    /// Whether the file is there, as long as its header says, with exactly these tensors.
    pub(super) fn has_shard(&self, name: &str, tensors: &[OutputTensor]) -> bool {
        let path = self.dir.join(name);
        let Ok(found) = tensor_names(&path) else { return false };
        let expected: BTreeSet<&str> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
        let of_ours = |found: &String| {
            expected.contains(found.as_str())
                || tensors.iter().any(|tensor| {
                    found.strip_prefix(tensor.name.as_str()).is_some_and(|rest| rest.starts_with('.'))
                })
        };
        expected.iter().all(|name| found.contains(*name)) && found.iter().all(of_ours)
    }

    /// Writes one file under a passing name, syncs it, and gives it its own. What fails is removed.
    pub(super) fn write_shard(
        &self,
        name: &str,
        tensors: &[OutputTensor],
        fill: &mut dyn FnMut(&mut ShardFile) -> Result<(), ModelError>,
    ) -> Result<(), ModelError> {
        let (path, part) = (self.dir.join(name), self.dir.join(format!("{name}.part")));
        let written = ShardFile::create(&part, tensors).and_then(|mut file| {
            fill(&mut file)?;
            file.finish()
        });
        let renamed = written.and_then(|()| {
            fs::rename(&part, &path)
                .and_then(|()| sync_folder(&self.dir))
                .map_err(|source| ModelError::Write { path, source })
        });
        if renamed.is_err() {
            let _ = fs::remove_file(&part);
        }
        renamed
    }

    /// Writes what stands beside the weights and gives the folder its name; returns the bytes of the weights.
    pub(super) fn finish(self, order: &Order<'_>, names: &[String]) -> Result<u64, ModelError> {
        let io = |path: &Path, source| ModelError::Write { path: path.to_owned(), source };
        for file in order.beside {
            let to = self.dir.join(file.file_name().unwrap_or_default());
            fs::copy(file, &to).and_then(|_| File::open(&to)?.sync_all()).map_err(|e| io(&to, e))?;
        }
        let mut bytes = 0;
        for name in names {
            let path = self.dir.join(name);
            bytes += fs::metadata(&path).map_err(|e| io(&path, e))?.len();
        }
        if names.len() > 1 {
            let path = self.dir.join("model.safetensors.index.json");
            let index = self.index(names)?;
            write_synced(&path, &format!("{index:#}\n")).map_err(|e| io(&path, e))?;
        }
        let path = self.dir.join("config.json");
        write_synced(&path, &format!("{:#}\n", order.config)).map_err(|e| io(&path, e))?;
        sync_folder(&self.dir).map_err(|e| io(&self.dir, e))?;
        if order.out.symlink_metadata().is_ok() {
            return Err(ModelError::OutputExists { path: order.out.to_owned() });
        }
        fs::rename(&self.dir, order.out)
            .and_then(|()| sync_folder(order.out.parent().unwrap_or(Path::new("."))))
            .map_err(|e| io(order.out, e))?;
        // Last, so that the lock holds until the folder has its name. Without it the checkpoint is as complete.
        let _ = fs::remove_file(order.out.join(PROGRESS));
        Ok(bytes)
    }

    fn index(&self, names: &[String]) -> Result<Value, ModelError> {
        let mut map = Map::new();
        for name in names {
            for tensor in tensor_names(&self.dir.join(name))? {
                map.insert(tensor, json!(name));
            }
        }
        map.sort_keys();
        let mut total = 0;
        for name in names {
            total += tensor_bytes(&self.dir.join(name))?;
        }
        Ok(json!({ "metadata": { "total_size": total }, "weight_map": map }))
    }
}

/// A folder in the place of ours that is not ours: a link, or one with files but without our list.
fn refuse_foreign(dir: &Path) -> Result<(), ModelError> {
    let Ok(found) = dir.symlink_metadata() else { return Ok(()) };
    let io = |source| ModelError::Write { path: dir.to_owned(), source };
    let mut ours = found.is_dir();
    if ours && !dir.join(PROGRESS).is_file() {
        ours = fs::read_dir(dir).map_err(io)?.next().is_none();
    }
    if ours { Ok(()) } else { Err(ModelError::PartialForeign { path: dir.to_owned() }) }
}

/// Removes what an earlier plan left, the lock aside.
fn clear(dir: &Path) -> Result<(), ModelError> {
    let io = |path: &Path, source| ModelError::Write { path: path.to_owned(), source };
    for entry in fs::read_dir(dir).map_err(|e| io(dir, e))? {
        let path = entry.map_err(|e| io(dir, e))?.path();
        // The folder is ours: `refuse_foreign` has seen to it.
        if path.is_file() && path.file_name() != Some(PROGRESS.as_ref()) {
            fs::remove_file(&path).map_err(|e| io(&path, e))?;
        }
    }
    Ok(())
}

fn write_synced(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// A rename lasts when its folder is synced; systems that cannot open a folder need no sync.
fn sync_folder(dir: &Path) -> io::Result<()> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    match File::open(dir) {
        Ok(folder) => folder.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        Err(error) => Err(error),
    }
}
