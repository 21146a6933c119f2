//! Which files of a source are read.

use std::path::PathBuf;

use super::SourceFile;
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
    let read =
        if quota == 0 { vec![false; files.len()] } else { within_budget(&files, &source.name, settings) };
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

/// Which of a source's listed files a plan with these settings reads: whoever has yet to fetch them needs no others.
pub fn files_to_read(source: &SourceSpec, settings: &CorpusSettings) -> Vec<ListedFile> {
    let Found { files, .. } = listed(source);
    let read = within_budget(&files, &source.name, settings);
    let taken = files.into_iter().zip(read).filter(|(_, read)| *read);
    taken.map(|(file, _)| ListedFile { path: file.shown, bytes: file.bytes }).collect()
}

/// Whether each file is read: all, or in seeded order until the next would exceed the budget, at least one.
fn within_budget(files: &[DataFile], name: &str, settings: &CorpusSettings) -> Vec<bool> {
    let mut order: Vec<usize> = (0..files.len()).collect();
    if files.iter().map(|file| file.bytes).fold(0, u64::saturating_add) > settings.file_budget {
        let seeded = |i: &usize| fingerprint::priority(settings.seed, name, files[*i].shown.as_bytes());
        order.sort_by_cached_key(|i| (seeded(i), *i));
    }
    let mut read = vec![false; files.len()];
    let mut bytes = 0u64;
    for (taken, &i) in order.iter().enumerate() {
        bytes = bytes.saturating_add(files[i].bytes);
        if taken > 0 && bytes > settings.file_budget {
            break;
        }
        read[i] = true;
    }
    read
}

/// Fills in the hashes of the files that are read.
pub(crate) fn fingerprint(files: &mut [(DataFile, SourceFile)]) -> Result<(), CorpusError> {
    for (file, about) in files.iter_mut().filter(|(_, about)| about.read) {
        about.blake3 = fingerprint::of_file(&file.path)?;
    }
    Ok(())
}
