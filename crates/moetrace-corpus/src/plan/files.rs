//! Which files of a source are read.

use std::path::PathBuf;

use super::{SourceFile, needed};
use crate::error::printable;
use crate::fingerprint;
use crate::read::{DataFile, Found, data_files};
use crate::{CorpusError, CorpusSettings, ListedFile, SourceSpec};

/// The files of a source and whether each is read, and what is odd about them.
pub(crate) type Chosen = (Vec<(DataFile, SourceFile)>, Vec<String>);

/// All data files in name order, and of those that the budget allows whether they are read.
pub(crate) fn choose(
    source: &SourceSpec,
    settings: &CorpusSettings,
    quota: usize,
) -> Result<Chosen, CorpusError> {
    let Found { files, dangling } =
        if source.listed.is_empty() { data_files(&source.path)? } else { listed(source) };
    if let Some(path) = dangling.first().filter(|_| settings.strict) {
        return Err(CorpusError::io("open", path, std::io::ErrorKind::NotFound.into()));
    }
    if files.is_empty() {
        return Err(CorpusError::NoFiles { dataset: source.name.clone(), path: source.path.clone() });
    }
    let read = match (quota, source.listed.is_empty()) {
        (0, _) => vec![false; files.len()],
        (_, true) => within_budget(&files, &source.name, settings),
        (_, false) => {
            let listed = |file: &DataFile| source.listed.iter().find(|l| l.path == file.shown);
            files.iter().map(|file| listed(file).is_some_and(|listed| listed.read)).collect()
        }
    };
    let about = |file: &DataFile, read| SourceFile {
        path: file.shown.clone(),
        bytes: file.bytes,
        blake3: String::new(),
        read,
    };
    let nowhere = |path: &PathBuf| {
        printable(&format!("{} is a link that leads nowhere and was passed over", path.display()))
    };
    let notes = dangling.iter().map(nowhere).collect();
    Ok((files.into_iter().zip(read).map(|(file, read)| (file.clone(), about(&file, read))).collect(), notes))
}

/// The files that are known beforehand, in name order.
fn listed(source: &SourceSpec) -> Found {
    let file = |listed: &ListedFile| DataFile {
        path: source.path.join(&listed.path),
        shown: listed.path.clone(),
        bytes: listed.bytes,
    };
    let mut files: Vec<DataFile> = source.listed.iter().map(file).collect();
    files.sort_by(|a, b| a.shown.cmp(&b.shown));
    Found { files, dangling: Vec::new() }
}

/// Whether each file is read: all, or in seeded order until the next would exceed the budget, at least one.
fn within_budget(files: &[DataFile], name: &str, settings: &CorpusSettings) -> Vec<bool> {
    let files: Vec<(&str, u64)> = files.iter().map(|file| (file.shown.as_str(), file.bytes)).collect();
    needed::within_budget(&files, name, settings)
}

/// Fills in the hashes of the files that are read.
pub(crate) fn fingerprint(files: &mut [(DataFile, SourceFile)]) -> Result<(), CorpusError> {
    for (file, about) in files.iter_mut().filter(|(_, about)| about.read) {
        about.blake3 = fingerprint::of_file(&file.path)?;
    }
    Ok(())
}
