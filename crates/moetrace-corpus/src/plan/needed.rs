//! Which files of a data set are taken where all would be too many.

use crate::CorpusSettings;
use crate::fingerprint;

/// Rows that are wanted for each sample wanted: some are empty, too short, or there twice. A choice on the safe side; a
/// data set that still falls short says so, as one that is small does.
const ROWS_PER_SAMPLE: u64 = 4;

/// Which `files`, of names and sizes, a data set needs for `quota` samples, before they are here: all if they are no
/// larger than the file budget together; else, in seeded order, as many as hold four rows for each sample wanted.
/// `rows_of` tells how many rows a file has.
///
/// # Errors
/// Those of `rows_of`.
pub fn files_needed<E>(
    files: &[(&str, u64)],
    dataset: &str,
    settings: &CorpusSettings,
    quota: usize,
    mut rows_of: impl FnMut(usize) -> Result<u64, E>,
) -> Result<Vec<bool>, E> {
    if total(files) <= settings.file_budget {
        return Ok(vec![true; files.len()]);
    }
    let (mut needed, mut rows) = (vec![false; files.len()], 0u64);
    for i in seeded_order(files, dataset, settings.seed) {
        rows = rows.saturating_add(rows_of(i)?);
        needed[i] = true;
        if rows >= (quota as u64).saturating_mul(ROWS_PER_SAMPLE) {
            break;
        }
    }
    Ok(needed)
}

/// Whether each file is read: all, or in seeded order until the next would exceed the budget, at least one.
pub(super) fn within_budget(files: &[(&str, u64)], dataset: &str, settings: &CorpusSettings) -> Vec<bool> {
    if total(files) <= settings.file_budget {
        return vec![true; files.len()];
    }
    let (mut read, mut bytes) = (vec![false; files.len()], 0u64);
    for (taken, i) in seeded_order(files, dataset, settings.seed).into_iter().enumerate() {
        bytes = bytes.saturating_add(files[i].1);
        if taken > 0 && bytes > settings.file_budget {
            break;
        }
        read[i] = true;
    }
    read
}

fn total(files: &[(&str, u64)]) -> u64 {
    files.iter().map(|(_, bytes)| *bytes).fold(0, u64::saturating_add)
}

/// By seed, name of the data set and the files' own names.
fn seeded_order(files: &[(&str, u64)], dataset: &str, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..files.len()).collect();
    order.sort_by_cached_key(|&i| (fingerprint::priority(seed, dataset, files[i].0.as_bytes()), i));
    order
}
