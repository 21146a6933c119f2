//! The samples table of a shard.

use moetrace_trace::{MAX_SAMPLE_TOKENS, SampleRow, read_samples};

use super::{FaultKind, Place, Verifying, shard_file};
use crate::Shard;

impl Verifying<'_> {
    /// Reads and checks the samples of a shard; `None` if they cannot be read.
    pub(super) fn samples(&mut self, shard: &Shard) -> Option<Vec<SampleRow>> {
        let file = shard_file("samples", shard);
        if !self.is_there("samples", shard) {
            return None;
        }
        let samples = match read_samples(&self.folder.shard_path("samples", &shard.name)) {
            Ok(samples) => samples,
            Err(error) => {
                self.unreadable(&file, &error);
                return None;
            }
        };
        self.metadata(shard, "samples");
        self.out.samples += samples.len() as u64;
        if samples.len() != shard.samples {
            let what = format!("it lists {} texts, the manifest says {}", samples.len(), shard.samples);
            self.faults.of_file(FaultKind::RowCount, &file, what);
        }
        let tokens = samples.iter().fold(0u64, |sum, sample| sum.saturating_add(sample.tokens.into()));
        if tokens != shard.tokens {
            let what = format!("its texts have {tokens} tokens, the manifest says {}", shard.tokens);
            self.faults.of_file(FaultKind::Samples, &file, what);
        }
        for (row, sample) in samples.iter().enumerate() {
            self.sample(shard, row as u64, sample);
        }
        if let Some(seen) = self.datasets.get_mut(shard.dataset) {
            seen.shards += 1;
        }
        Some(samples)
    }

    fn sample(&mut self, shard: &Shard, row: u64, sample: &SampleRow) {
        let dataset = self.manifest.datasets.get(shard.dataset).map(|dataset| dataset.name.clone());
        let place = || Place {
            row: Some(row),
            dataset: dataset.clone(),
            sample: Some(sample.sample_id.0),
            ..Place::file(shard_file("samples", shard))
        };
        let is_new = match self.datasets.get_mut(shard.dataset) {
            Some(seen) => {
                seen.truncated += u64::from(sample.truncated);
                seen.ids.insert(sample.sample_id.0)
            }
            None => true,
        };
        if !is_new {
            let what = "the text was listed before in this data set";
            self.faults.add(FaultKind::RepeatedSample, || (place(), what.into()));
        }
        if let Some(what) = self.length_objection(sample) {
            self.faults.add(FaultKind::Samples, || (place(), what));
        }
        if let Some(what) = hash_objection(sample) {
            self.faults.add(FaultKind::TextHash, || (place(), what));
        }
    }

    fn length_objection(&self, sample: &SampleRow) -> Option<String> {
        let tokens = sample.tokens as usize;
        let most = self.manifest.identity.get("max_length").and_then(|n| n.parse().ok());
        let most = most.unwrap_or(MAX_SAMPLE_TOKENS).min(MAX_SAMPLE_TOKENS);
        if !(1..=most).contains(&tokens) {
            return Some(format!("the text has {tokens} tokens, expected 1 to {most}"));
        }
        if sample.truncated && tokens != most {
            return Some(format!("the text is marked as truncated at {tokens} tokens, expected {most}"));
        }
        None
    }
}

/// What about a text's hash is not so, if anything.
fn hash_objection(sample: &SampleRow) -> Option<String> {
    let hash = &sample.text_hash;
    if hash.len() != 32 || !hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Some(format!("the hash of the text is {hash:?}, expected 32 hexadecimal digits"));
    }
    let text = sample.text.as_ref()?;
    let own = &blake3::hash(text.trim().as_bytes()).to_hex()[..32];
    (own != hash).then(|| format!("the text's hash is {own}, the table says {hash}"))
}
