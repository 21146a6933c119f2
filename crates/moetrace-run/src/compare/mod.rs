//! Two runs over the same tokens, walked through side by side.
//!
//! Rows of a data set come in the same plan order in every run, but two runs may have been cut into different
//! shards, and either may hold fewer texts. The walk goes text by text in plan order, across the boundaries of
//! shards on both sides; no more is held than one pass and what is decoded at once.

mod difference;
mod side;
mod walk;

use moetrace_metrics::fidelity::{FidelityReport, FidelitySettings};
use serde::Serialize;

use self::side::Run;
use self::walk::Walk;
use crate::{Manifest, ModelFacts, RunError, RunFolder, Trust};

pub use self::difference::TokenDifference;

/// How it is known that both runs are over the same tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenBasis {
    /// Token ids of every row.
    TokenIds,
    /// One of them records no ids: the same tokenizer, texts of the same hash and as many tokens.
    TextHashes,
}

/// One of the two runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ComparedRun {
    /// Its model, and how that was computed.
    pub model: ModelFacts,
    /// Texts planned.
    pub samples: u64,
    /// Tokens planned, BOS included.
    pub tokens: u64,
    /// Shards planned.
    pub shards: usize,
    /// Shards committed.
    pub committed_shards: usize,
    /// Tokens committed, BOS included.
    pub committed_tokens: u64,
}

/// What was compared of one data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ComparedDataset {
    /// Its name.
    pub name: String,
    /// Texts compared.
    pub samples: u64,
    /// Tokens compared, BOS included.
    pub tokens: u64,
    /// Texts that the reference planned.
    pub reference_samples: u64,
    /// Texts that the other planned.
    pub other_samples: u64,
}

/// Two runs, what of them was compared, and the numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The run that the other is measured by.
    pub reference: ComparedRun,
    /// The other one.
    pub other: ComparedRun,
    /// Texts compared.
    pub samples: u64,
    /// Tokens compared, BOS included.
    pub tokens: u64,
    /// How they are known to be the same.
    pub basis: TokenBasis,
    /// Each data set.
    pub datasets: Vec<ComparedDataset>,
    /// The numbers.
    pub fidelity: FidelityReport,
}

/// Compares the texts that both runs have committed. Model, precision and shards may differ; data sets, tokens and
/// the shape of the routing may not.
///
/// # Errors
/// [`RunError::OtherRouting`] and [`RunError::OtherTokens`] with what differs, [`RunError::NothingInCommon`], and
/// whatever is wrong with either run's files.
pub fn compare(
    reference: &RunFolder,
    other: &RunFolder,
    settings: FidelitySettings,
    trust: Trust,
) -> Result<Comparison, RunError> {
    let manifests = (reference.manifest()?, other.manifest()?);
    let runs =
        (Run { folder: reference, manifest: &manifests.0 }, Run { folder: other, manifest: &manifests.1 });
    let mut walk = Walk::new(runs, settings, trust)?;
    let mut datasets = Vec::new();
    for name in walk.names()? {
        datasets.push(walk.dataset(name)?);
    }
    let samples = datasets.iter().map(|d| d.samples).sum();
    if samples == 0 {
        let (reference, other) = (reference.root().into(), other.root().into());
        return Err(RunError::NothingInCommon { reference, other });
    }
    Ok(Comparison {
        reference: facts(runs.0)?,
        other: facts(runs.1)?,
        samples,
        tokens: datasets.iter().map(|d| d.tokens).sum(),
        basis: walk.basis(),
        datasets,
        fidelity: walk.report(),
    })
}

fn facts(run: Run<'_>) -> Result<ComparedRun, RunError> {
    let shards = &run.manifest.shards;
    let (mut committed_shards, mut committed_tokens) = (0, 0);
    for shard in shards {
        if let Some(record) = run.folder.committed(run.manifest, shard)? {
            committed_shards += 1;
            committed_tokens = record.rows.saturating_add(committed_tokens);
        }
    }
    Ok(ComparedRun {
        model: run.manifest.model.clone(),
        samples: shards.iter().map(|s| s.samples as u64).fold(0, u64::saturating_add),
        tokens: shards.iter().map(|s| s.tokens).fold(0, u64::saturating_add),
        shards: shards.len(),
        committed_shards,
        committed_tokens,
    })
}

/// Whether a switch stands in a run's identity and is on.
fn is_on(manifest: &Manifest, name: &str) -> bool {
    manifest.identity.get(name).is_some_and(|value| value == "true")
}
