//! One writer per shard, held by the operating system: freed when the process ends, however it ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};

use crate::error::OnPath;
use crate::{RunError, RunFolder};

/// The right to write one shard, until dropped.
#[derive(Debug)]
pub(crate) struct ShardLock {
    _file: File,
}

/// Who has the lock.
pub(crate) enum Locked {
    Ours(ShardLock),
    Theirs(String),
}

/// Takes the shard's lock unless another process has it.
pub(crate) fn lock_shard(folder: &RunFolder, shard: &str) -> Result<Locked, RunError> {
    let path = folder.lock_path(shard);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .on("cannot open", &path)?;
    match file.try_lock() {
        Ok(()) => {
            // The holder's number is for the message of whoever finds the lock taken; nothing depends on it.
            let _ = file.set_len(0).and_then(|()| write!(file, "pid {}", std::process::id()));
            Ok(Locked::Ours(ShardLock { _file: file }))
        }
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            Ok(Locked::Theirs(if holder.is_empty() { "another process".into() } else { holder }))
        }
        Err(TryLockError::Error(source)) => Err(source).on("cannot lock", &path),
    }
}
