//! Files and links that get their names when they are whole, under names of their own before.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use crate::HubError;

/// How names of files end that are being written.
pub(crate) const UNFINISHED: &str = ".moetrace.incomplete";

/// Writes a small file at once: nobody sees a part of it.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), HubError> {
    let written = beside(path, |part| File::create_new(part)).and_then(|(part, mut file)| {
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&part, path)
    });
    written.map_err(HubError::io("write", path))
}

/// A link under a new name beside `path`; a copy where links cannot be made.
pub(crate) fn placed(target: &Path, blob: &Path, path: &Path) -> io::Result<PathBuf> {
    #[cfg(unix)]
    if let Ok((part, ())) = beside(path, |part| std::os::unix::fs::symlink(target, part)) {
        return Ok(part);
    }
    let _ = target;
    // Into a file that this call has made: a copy through a link that lay there would empty the blob itself.
    let (part, mut file) = beside(path, |part| File::create_new(part))?;
    io::copy(&mut File::open(blob)?, &mut file)?;
    Ok(part)
}

pub(crate) fn create_parent(path: &Path) -> Result<(), HubError> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(HubError::io("create", parent))
}

/// Names tried beside a file; with 64 random bits each, more than one is needed only where names cannot be made at all.
const NAMES: u32 = 8;

/// Makes something under a new name beside a file. The name is random, not the process's number, which is 1 in every
/// container: what another process left behind, or makes at this moment, is neither used nor in the way.
pub(crate) fn beside<T>(path: &Path, make: impl Fn(&Path) -> io::Result<T>) -> io::Result<(PathBuf, T)> {
    use std::hash::{BuildHasher as _, RandomState};
    let mut tried = 0;
    loop {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{:016x}{UNFINISHED}", RandomState::new().hash_one(tried)));
        let part = path.with_file_name(name);
        tried += 1;
        match make(&part) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists && tried < NAMES => {}
            made => return made.map(|made| (part, made)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_name_that_is_taken_is_left_alone_and_another_one_tried() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("main");
        let first = Cell::new(true);
        let (part, mut file) = beside(&path, |part| {
            if first.replace(false) {
                fs::write(part, "of another")?;
            }
            File::create_new(part)
        })
        .unwrap();
        file.write_all(b"mine").unwrap();
        let mut held: Vec<String> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
            .collect();
        held.sort();
        assert_eq!(held, ["mine", "of another"]);
        assert!(part.to_str().unwrap().ends_with(UNFINISHED));
        let refused = beside(&path, |_| Err::<(), _>(ErrorKind::AlreadyExists.into())).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
    }
}
