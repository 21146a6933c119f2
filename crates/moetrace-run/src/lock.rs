//! Who writes what, held by the operating system: freed when the process ends, however it ends.
//!
//! A shard has one writer, who holds its lock alone. A run has many processes at work, who share its lock; who
//! holds that one alone may move the run away and remove what earlier processes left behind.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

use crate::error::OnPath;
use crate::{RunError, RunFolder};

/// How often a lock is tried while others only look at it, a millisecond between.
const LOOKS: usize = 500;

/// The right to write one shard, or to work in a run, until dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: Option<File>,
}

/// Who has the lock.
pub(crate) enum Locked {
    Ours(Lock),
    Theirs(String),
}

/// Takes the shard's lock unless another process has it. `holder` is what that process then reads of us.
pub(crate) fn lock_shard(folder: &RunFolder, shard: &str, holder: &str) -> Result<Locked, RunError> {
    let path = folder.lock_path(shard);
    let mut file = open(&path).on("cannot open", &path)?;
    if !outlasts_lookers(&file).on("cannot lock", &path)? {
        return Ok(Locked::Theirs(holder_in(&mut file)));
    }
    // Who holds it is for the message of whoever finds the lock taken; nothing depends on it.
    let _ = file.set_len(0).and_then(|()| write!(file, "{holder}"));
    Ok(Locked::Ours(Lock { _file: Some(file) }))
}

/// Who writes a shard, if anybody. Nothing is created or changed, and no writer is kept from its lock.
pub(crate) fn writer_of(folder: &RunFolder, shard: &str) -> Option<String> {
    // Where a lock can be neither opened nor taken (a read-only copy of a run), nobody writes either.
    let mut file = File::open(folder.lock_path(shard)).ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Some(holder_in(&mut file)),
        _ => None,
    }
}

/// The run's lock, if no other process is at work there.
pub(crate) fn lock_run(folder: &RunFolder) -> Result<Option<Lock>, RunError> {
    let path = folder.run_lock_path();
    let file = open(&path).on("cannot open", &path)?;
    Ok(is_alone(&file).on("cannot lock", &path)?.then_some(Lock { _file: Some(file) }))
}

/// Shares the run's lock with everybody at work there; before that calls `if_alone` if nobody is. `None` if the run
/// was moved away meanwhile, and has to be opened again.
pub(crate) fn share_run(folder: &RunFolder, if_alone: impl FnOnce()) -> Result<Option<Lock>, RunError> {
    let path = folder.run_lock_path();
    let file = match open(&path) {
        // A read-only copy of a run can be counted all the same; the first write names what is refused.
        Err(error) if is_read_only(&error) => return Ok(Some(Lock { _file: None })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.on("cannot open", &path)?,
    };
    if is_alone(&file).on("cannot lock", &path)? {
        if_alone();
        file.unlock().on("cannot unlock", &path)?;
    }
    // Whoever holds it alone does so for a moment only.
    while let Err(error) = file.lock_shared() {
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error).on("cannot lock", &path);
        }
    }
    Ok(is_at(&file, &path).then_some(Lock { _file: Some(file) }))
}

/// Whether the system says that nothing can be written there.
pub(crate) fn is_read_only(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}

/// Takes the lock for nobody but us, unless somebody has it.
fn is_alone(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// As `is_alone`, where others may look at the lock: they share it for an instant, which is waited out.
fn outlasts_lookers(file: &File) -> io::Result<bool> {
    for _ in 0..LOOKS {
        if is_alone(file)? {
            return Ok(true);
        }
        match file.try_lock_shared() {
            Ok(()) => file.unlock()?,
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) => return Ok(false),
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(false)
}

fn holder_in(file: &mut File) -> String {
    let mut holder = String::new();
    let _ = file.take(200).read_to_string(&mut holder);
    if holder.is_empty() { "another process".into() } else { holder }
}

/// Whether the open file is still the one with this name.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let id = |about: io::Result<std::fs::Metadata>| about.ok().map(|about| (about.dev(), about.ino()));
    id(file.metadata()).is_some_and(|ours| id(std::fs::metadata(path)) == Some(ours))
}

/// Elsewhere an open file keeps its folder from being renamed.
#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> bool {
    true
}
