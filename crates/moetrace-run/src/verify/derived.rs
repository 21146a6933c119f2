//! Files that are made of the others.

use std::path::Path;

use moetrace_trace::read_vocabulary;

use super::{FaultKind, Verifying};
use crate::Summary;

impl Verifying<'_> {
    /// Whether summary and token strings are those of the shards. That they are missing is no fault: they can be made
    /// again at any time.
    pub(super) fn derived(&mut self) {
        self.summary();
        self.vocabulary();
    }

    /// Whether all shards were committed once: only then a summary is written.
    pub(super) fn was_finished(&self) -> bool {
        let bytes = std::fs::read(self.folder.root().join("summary.json"));
        let summary = bytes.ok().and_then(|bytes| serde_json::from_slice::<Summary>(&bytes).ok());
        summary.is_some_and(|summary| summary.plan_hash == self.manifest.plan_hash)
    }

    fn summary(&mut self) {
        let file = Path::new("summary.json");
        let Ok(bytes) = std::fs::read(self.folder.root().join(file)) else { return };
        let summary: Summary = match serde_json::from_slice(&bytes) {
            Ok(summary) => summary,
            Err(error) => {
                return self.faults.of_file(FaultKind::Summary, file, format!("it cannot be read: {error}"));
            }
        };
        let manifest = self.manifest;
        if summary.plan_hash != manifest.plan_hash {
            let what = format!("its plan_hash is {}, expected {}", summary.plan_hash, manifest.plan_hash);
            self.faults.of_file(FaultKind::Summary, file, what);
        }
        let samples = manifest.shards.iter().map(|shard| shard.samples as u64).sum();
        let tokens = manifest.shards.iter().map(|shard| shard.tokens).sum();
        let counted = summary.metrics.tokens + summary.metrics.bos_excluded;
        for (what, found, expected) in [
            ("shards", summary.shards as u64, manifest.shards.len() as u64),
            ("texts", summary.samples, samples),
            ("tokens", summary.tokens, tokens),
            ("tokens in its metrics", counted, tokens),
        ] {
            if found != expected {
                let what = format!("{found} {what}, the manifest says {expected}");
                self.faults.of_file(FaultKind::Summary, file, what);
            }
        }
    }

    fn vocabulary(&mut self) {
        let file = Path::new("tokens.parquet");
        let path = self.folder.root().join(file);
        if !path.exists() {
            return;
        }
        let words = match read_vocabulary(&path) {
            Ok(words) => words,
            Err(error) => return self.unreadable(file, &error),
        };
        if let Some([before, found]) = words.array_windows().find(|[before, found]| before.0 >= found.0) {
            let what = format!("token id {} follows {}, expected ascending ids", found.0, before.0);
            return self.faults.of_file(FaultKind::Vocabulary, file, what);
        }
        let mut missing: Vec<u32> = self.token_ids.iter().copied().collect();
        missing.sort_unstable();
        missing.retain(|id| words.binary_search_by_key(id, |(known, _)| known.0).is_err());
        for id in missing {
            let what = format!("token id {id} of a row is not among its {}", words.len());
            self.faults.of_file(FaultKind::Vocabulary, file, what);
        }
    }
}
