//! Space on the disk of a folder.

use std::path::Path;

/// Left free on the cache's disk beyond what is downloaded: lists, links, what others write meanwhile.
pub const DISK_RESERVE: u64 = 64 << 20;

/// Bytes that may still be written below a folder, or below the nearest one above it that exists; `None` where the
/// system does not say.
#[cfg(unix)]
pub fn free_bytes(folder: &Path) -> Option<u64> {
    let there = folder.ancestors().find(|path| path.exists()).filter(|path| !path.as_os_str().is_empty());
    let about = rustix::fs::statvfs(there.unwrap_or(Path::new("."))).ok()?;
    about.f_bavail.checked_mul(about.f_frsize)
}

/// Nobody is asked on other systems; a full disk is then found when it is full.
#[cfg(not(unix))]
pub fn free_bytes(_: &Path) -> Option<u64> {
    None
}
