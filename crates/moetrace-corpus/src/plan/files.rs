//! Which files of a source are read.

use std::path::PathBuf;

use super::SourceFile;
use crate::error::printable;
use crate::fingerprint;
use crate::read::{DataFile, Found, data_files};
use crate::{CorpusError, CorpusSettings, SourceSpec};

/// The files of a source and whether each is read, and what is odd about them.
pub(crate) type Chosen = (Vec<(DataFile, SourceFile)>, Vec<String>);

/// All data files in name order. Beyond the budget whole files are taken in seeded order until the next would
/// exceed it, at least one.
pub(crate) fn choose(
    source: &SourceSpec,
    settings: &CorpusSettings,
    quota: usize,
) -> Result<Chosen, CorpusError> {
    let Found { files, dangling } = data_files(&source.path)?;
    if let Some(path) = dangling.first().filter(|_| settings.strict) {
        return Err(CorpusError::io("open", path, std::io::ErrorKind::NotFound.into()));
    }
    if files.is_empty() {
        return Err(CorpusError::NoFiles { dataset: source.name.clone(), path: source.path.clone() });
    }
    let mut order: Vec<usize> = (0..files.len()).collect();
    if files.iter().map(|file| file.bytes).sum::<u64>() > settings.file_budget {
        let seeded =
            |i: &usize| fingerprint::priority(settings.seed, &source.name, files[*i].shown.as_bytes());
        order.sort_by_cached_key(|i| (seeded(i), *i));
    }
    let mut read = vec![false; files.len()];
    let mut bytes = 0u64;
    for (taken, &i) in order.iter().enumerate() {
        bytes = bytes.saturating_add(files[i].bytes);
        if quota == 0 || (taken > 0 && bytes > settings.file_budget) {
            break;
        }
        read[i] = true;
    }
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

/// Fills in the hashes of the files that are read.
pub(crate) fn fingerprint(files: &mut [(DataFile, SourceFile)]) -> Result<(), CorpusError> {
    for (file, about) in files.iter_mut().filter(|(_, about)| about.read) {
        about.blake3 = fingerprint::of_file(&file.path)?;
    }
    Ok(())
}
