//! What can go wrong with a run.

use std::io;
use std::path::{Path, PathBuf};

use moetrace_corpus::CorpusError;
use moetrace_metrics::MetricsError;
use moetrace_model::ModelError;
use moetrace_trace::TraceError;

use crate::{Difference, TokenDifference};

/// Every failure of a run, with the thing, the value and the expectation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the message of each variant says what its fields are")]
pub enum RunError {
    #[error("{action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is no run folder: manifest.json is missing", path.display())]
    NotARun { path: PathBuf },
    #[error("{} holds files that are no run of moetrace, such as {found}", path.display())]
    ForeignFolder { path: PathBuf, found: String },
    #[error("{} is damaged: {what}", path.display())]
    Damaged { path: PathBuf, what: String },
    #[error("{} is damaged (blake3 {found}, committed as {expected})", path.display())]
    Hash { path: PathBuf, found: String, expected: String },
    #[error("{} holds {found} bytes, its commit record says {expected}", path.display())]
    Size { path: PathBuf, found: u64, expected: u64 },
    #[error("{} is missing, its commit record says {expected} bytes", path.display())]
    Missing { path: PathBuf, expected: u64 },
    #[error("{} was started with other settings: {}", path.display(), list(differences))]
    OtherSettings { path: PathBuf, differences: Vec<Difference> },
    #[error("shards {from}..{to} are outside a run of {shards} shards")]
    ShardRange { from: usize, to: usize, shards: usize },
    #[error("another moetrace process is {} ({holder})", at_work(path, *busy))]
    Locked { path: PathBuf, busy: usize, holder: String },
    #[error("{} reads back {found} rows, {expected} were written", path.display())]
    Rows { path: PathBuf, found: u64, expected: u64 },
    #[error("layer {layer}: {plane} is {value} at {dataset} sample {sample}, position {position}")]
    NotFinite { layer: u16, plane: String, value: f32, dataset: String, sample: u32, position: u32 },
    #[error("the loss is {value} at {dataset} sample {sample}, position {position}")]
    LossNotFinite { value: f32, dataset: String, sample: u32, position: u32 },
    #[error(
        "{dataset} sample {sample}, position {position}: token id {found} is outside the vocabulary of {vocab}"
    )]
    TokenRange { dataset: String, sample: u32, position: u32, found: u32, vocab: usize },
    #[error("{shard}: memory ran out in passes of {tokens_per_pass} tokens, which cannot be made smaller")]
    OutOfMemory { shard: String, tokens_per_pass: usize, source: Box<ModelError> },
    #[error(
        "{} and {} have routers of different shape: {}", reference.display(), other.display(), list(differences)
    )]
    OtherRouting { reference: PathBuf, other: PathBuf, differences: Vec<Difference> },
    #[error(
        "{} and {} are over different tokens: {at}{}", reference.display(), other.display(), because(differences)
    )]
    OtherTokens { reference: PathBuf, other: PathBuf, at: Box<TokenDifference>, differences: Vec<Difference> },
    #[error("{} and {} have no committed text in common", reference.display(), other.display())]
    NothingInCommon { reference: PathBuf, other: PathBuf },
    #[error(transparent)]
    Corpus(#[from] CorpusError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Trace(#[from] TraceError),
    #[error(transparent)]
    Metrics(#[from] MetricsError),
}

fn list(differences: &[Difference]) -> String {
    differences.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// What a process with the lock does: it has none of a shard while it loads, looks or concludes.
fn at_work(path: &Path, busy: usize) -> String {
    match busy {
        0 => format!("at work in {}", path.display()),
        1 => format!("writing a shard of {}", path.display()),
        _ => format!("writing {busy} of the shards of {}", path.display()),
    }
}

fn because(differences: &[Difference]) -> String {
    if differences.is_empty() { String::new() } else { format!("; the runs differ in {}", list(differences)) }
}

/// Says which file an I/O error happened to.
pub(crate) trait OnPath<T> {
    fn on(self, action: &'static str, path: &Path) -> Result<T, RunError>;
}

impl<T> OnPath<T> for io::Result<T> {
    fn on(self, action: &'static str, path: &Path) -> Result<T, RunError> {
        self.map_err(|source| RunError::Io { action, path: path.into(), source })
    }
}
