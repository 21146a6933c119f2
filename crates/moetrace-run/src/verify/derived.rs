//! Files that are made of the others.

use std::path::Path;

use moetrace_metrics::{MetricsReport, MetricsSettings};
use moetrace_trace::read_vocabulary;
use serde_json::Value;

use super::{FaultKind, Verifying};
use crate::replay::{Trust, replay};
use crate::{RunError, Summary};

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
        // Rows that are at fault give other numbers, and are the fault to be told.
        if self.faults.is_empty() {
            match self.counted_otherwise(summary.metrics) {
                Ok(None) => {}
                Ok(Some(what)) => self.faults.of_file(FaultKind::Summary, file, what),
                Err(error) => {
                    let what = format!("its numbers cannot be counted again: {}", self.below(&error));
                    self.faults.of_file(FaultKind::Summary, file, what);
                }
            }
        }
    }

    /// The first number that the rows give otherwise, if any.
    fn counted_otherwise(&self, found: MetricsReport) -> Result<Option<String>, RunError> {
        let settings = MetricsSettings { include_bos: found.include_bos, seed: self.manifest.seed() };
        let (metrics, _) = replay(self.folder, self.manifest, &settings, Trust::Sizes)?;
        let [found, expected] = [found, metrics.report()].map(|report| as_written(&without_chance(report)));
        let Some((place, found, expected)) = first_difference("metrics", &found, &expected) else {
            return Ok(None);
        };
        Ok(Some(format!("{place} is {found}, the rows give {expected}")))
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

/// Without what depends on draws, whose seed need not be the plan's.
fn without_chance(mut report: MetricsReport) -> MetricsReport {
    report.layers.iter_mut().for_each(|layer| layer.specialisation = None);
    report.overall.null_mean_bits = None;
    report
}

/// As JSON that has been text once: what is read from a file has been, and a last bit may change on the way.
fn as_written(report: &MetricsReport) -> Value {
    let text = serde_json::to_vec(report);
    text.and_then(|text| serde_json::from_slice(&text)).unwrap_or_default()
}

/// Where two values differ first, and by what.
fn first_difference<'a>(place: &str, a: &'a Value, b: &'a Value) -> Option<(String, &'a Value, &'a Value)> {
    match (a, b) {
        (Value::Object(of_a), Value::Object(of_b)) if of_a.len() == of_b.len() => {
            of_a.iter().find_map(|(key, a)| {
                first_difference(&format!("{place}.{key}"), a, of_b.get(key).unwrap_or(&Value::Null))
            })
        }
        (Value::Array(of_a), Value::Array(of_b)) if of_a.len() == of_b.len() => {
            let mut pairs = of_a.iter().zip(of_b).enumerate();
            pairs.find_map(|(i, (a, b))| first_difference(&format!("{place}[{i}]"), a, b))
        }
        _ => (a != b).then(|| (place.to_owned(), a, b)),
    }
}
