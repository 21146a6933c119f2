//! The data files of a source, in name order.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::DataFile;
use super::open::named_format;
use crate::CorpusError;

/// Deeper folders are refused: they are loops or mistakes.
const DEPTH: usize = 32;

/// JSON files that describe a data set and are none.
const DESCRIPTIONS: [&str; 5] =
    ["dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "config.json"];

/// Text files of these names speak about a data set.
const ABOUT: [&str; 8] =
    ["readme", "license", "licence", "copying", "notice", "changelog", "citation", "source"];

/// The files of a source.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) files: Vec<DataFile>,
    /// Links of a data file's name that lead nowhere, as a copied download cache has them.
    pub(crate) dangling: Vec<PathBuf>,
}

/// The file itself, or all files of a known format below the folder: sorted by relative path, hidden files
/// and files about the data (README, LICENSE, `dataset_info.json`, ...) left out, links to folders not followed.
pub(crate) fn data_files(root: &Path) -> Result<Found, CorpusError> {
    let about = fs::metadata(root).map_err(|e| CorpusError::io("open", root, e))?;
    let mut found = Found::default();
    if about.is_dir() {
        walk(root, "", 0, &mut found)?;
    } else if let Some(found) = irregular(about.file_type()) {
        return Err(CorpusError::NoRegularFile { path: root.to_owned(), found });
    } else {
        let shown = root.file_name().unwrap_or(root.as_os_str()).to_string_lossy().into_owned();
        found.files.push(DataFile { path: root.to_owned(), shown, bytes: about.len() });
    }
    found.files.sort_by(|a, b| a.shown.cmp(&b.shown).then_with(|| a.path.cmp(&b.path)));
    found.dangling.sort();
    Ok(found)
}

fn walk(folder: &Path, below: &str, depth: usize, found: &mut Found) -> Result<(), CorpusError> {
    let io = |e| CorpusError::io("list", folder, e);
    if depth > DEPTH {
        return Err(io(std::io::Error::other("more than 32 folders deep")));
    }
    for entry in fs::read_dir(folder).map_err(io)? {
        let entry = entry.map_err(io)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        let (path, shown) = (entry.path(), format!("{below}{name}"));
        if entry.file_type().map_err(io)?.is_dir() {
            walk(&path, &format!("{shown}/"), depth + 1, found)?;
        } else if is_data(&name) {
            // Links to files are followed: that is how download caches look.
            match fs::metadata(&path) {
                Ok(about) if about.is_file() => {
                    found.files.push(DataFile { path, shown, bytes: about.len() });
                }
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::NotFound && path.is_symlink() => found.dangling.push(path),
                Err(e) => return Err(CorpusError::io("open", &path, e)),
            }
        }
    }
    Ok(())
}

/// What is no file whose bytes can be read more than once; reading it could also never end.
fn irregular(kind: fs::FileType) -> Option<&'static str> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if kind.is_fifo() {
            return Some("a pipe");
        } else if kind.is_char_device() || kind.is_block_device() {
            return Some("a device");
        } else if kind.is_socket() {
            return Some("a socket");
        }
    }
    (!kind.is_file()).then_some("something else")
}

fn is_data(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let Some((_, suffix)) = named_format(&lower) else { return false };
    let stem = &lower[..lower.len() - suffix.len()];
    let speaks_about = suffix.starts_with(".txt") && ABOUT.contains(&stem);
    !speaks_about && !DESCRIPTIONS.contains(&lower.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_yield_their_data_files_in_name_order() {
        let folder = tempfile::tempdir().unwrap();
        for name in
            ["b.jsonl", "a/2.csv", "a/1.txt", "a.txt", ".hidden.txt", "README.txt", "state.json", "x.py"]
        {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        std::os::unix::fs::symlink(folder.path(), folder.path().join("loop")).unwrap();
        let found: Vec<_> = data_files(folder.path()).unwrap().files.into_iter().map(|f| f.shown).collect();
        assert_eq!(found, ["a.txt", "a/1.txt", "a/2.csv", "b.jsonl"]);
        assert!(data_files(&folder.path().join("absent")).is_err());
    }
}
