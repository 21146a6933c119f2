//! Which texts a run is over.

use moetrace_trace::read_samples;

use crate::{Manifest, RunError, RunFolder};

/// A hash of the texts of all committed shards and of how many tokens each has, in hexadecimal digits: equal where two
/// runs are over the same texts cut into as many tokens, however they are cut into shards and whatever the data sets are
/// called.
///
/// # Errors
/// A [`RunError`] naming the record or the samples table that is damaged.
pub fn texts_hash(folder: &RunFolder, manifest: &Manifest) -> Result<String, RunError> {
    let mut texts = Vec::new();
    for shard in &manifest.shards {
        if folder.committed(manifest, shard)?.is_some() {
            let samples = read_samples(&folder.shard_path("samples", &shard.name))?;
            texts.extend(samples.into_iter().map(|s| (s.text_hash, s.sample_id, s.tokens)));
        }
    }
    texts.sort_unstable();
    let mut hash = blake3::Hasher::new();
    for (text, id, tokens) in texts {
        // Other tools do not say which texts they took.
        let text = if text.is_empty() { id.0.to_string() } else { text };
        hash.update(format!("{text} {tokens}\n").as_bytes());
    }
    Ok(hash.finalize().to_hex().to_string())
}
