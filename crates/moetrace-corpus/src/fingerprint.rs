//! BLAKE3 for three purposes: telling texts apart, naming files, and choosing rows by seed.

use std::fs::File;
use std::path::Path;

use moetrace_routing::TokenId;

use crate::CorpusError;

/// First 16 bytes of the BLAKE3 of `text` without surrounding whitespace.
pub(crate) fn of_text(text: &str) -> [u8; 16] {
    first_bytes(&blake3::hash(text.trim().as_bytes()))
}

/// The same of token ids; the prefix keeps them apart from texts.
pub(crate) fn of_token_ids(ids: &[TokenId]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"input_ids");
    for id in ids {
        hasher.update(&id.0.to_le_bytes());
    }
    first_bytes(&hasher.finalize())
}

/// BLAKE3 of a whole file in hex.
pub(crate) fn of_file(path: &Path) -> Result<String, CorpusError> {
    let mut hasher = blake3::Hasher::new();
    File::open(path)
        .and_then(|file| hasher.update_reader(file).map(|_| ()))
        .map_err(|e| CorpusError::io("read", path, e))?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// A number that depends on the seed, the data set and `item` alone: sorting by it is a seeded shuffle, and
/// its beginning does not depend on how much of it is taken.
pub(crate) fn priority(seed: u64, dataset: &str, item: &[u8]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes()).update(&(dataset.len() as u64).to_le_bytes());
    hasher.update(dataset.as_bytes()).update(item);
    let [a, b, c, d, e, f, g, h, ..] = *hasher.finalize().as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

fn first_bytes(hash: &blake3::Hash) -> [u8; 16] {
    let mut first = [0; 16];
    first.copy_from_slice(&hash.as_bytes()[..16]);
    first
}
