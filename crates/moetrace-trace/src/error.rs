//! What can go wrong between routing views and files.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use moetrace_routing::{LayerIndex, Name, RoutingError, SampleId, SinkError};
use parquet::errors::ParquetError;

/// A trace that cannot be written or read. Rows of a file count from 0.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the message of each variant says what its fields are")]
pub enum TraceError {
    #[error("sample {sample}: position {found} does not fit the trace's 16 bits, expected at most {most}")]
    Position { sample: SampleId, found: u32, most: u32 },
    #[error("sample {sample} has {found} tokens, expected at most {most}")]
    SampleLength { sample: SampleId, found: usize, most: usize },
    #[error("sample {sample} is of data set {found} in a shard of {expected}")]
    Dataset { sample: SampleId, found: Name, expected: Name },
    #[error("layer {layer}: the producer delivered no {plane} although this trace records it")]
    PlaneMissing { layer: LayerIndex, plane: &'static str },
    #[error(
        "sample {sample}: the loss of its token {row} is not a number; only that of token 0 may be missing"
    )]
    Loss { sample: SampleId, row: usize },
    #[error("layer {layer}: the view's {what} is {found}, expected {expected}")]
    View { layer: LayerIndex, what: &'static str, found: usize, expected: usize },
    #[error("a pass got its call number {found} (0 begins it, then one a layer) where {expected} was due")]
    PassOrder { found: usize, expected: usize },
    #[error("the shard recorded hidden states: {recorded}; a file was given for them: {given}")]
    HiddenFile { recorded: bool, given: bool },
    #[error("metadata key `{key}` belongs to the trace format and cannot be set by a run")]
    MetadataKey { key: String },
    #[error("writing the {table} table failed")]
    Write { table: &'static str, source: ParquetError },
    #[error("starting a thread to encode columns failed")]
    Thread { source: io::Error },
    #[error("the thread that encodes data set {dataset} broke off after {rows} rows of the shard")]
    EncoderLost { dataset: Name, rows: u64 },

    #[error("{}: cannot be read", file.display())]
    Read { file: PathBuf, source: io::Error },
    #[error("{}: damaged at or after row {row}", file.display())]
    Damaged { file: PathBuf, row: u64, source: Box<dyn Error + Send + Sync> },
    #[error("{}: {what} is {found}, expected at most {most}", file.display())]
    Limit { file: PathBuf, what: &'static str, found: u64, most: u64 },
    #[error("{}: metadata `{key}` is {}, expected {expected}", file.display(), found.as_deref().unwrap_or("missing"))]
    Metadata { file: PathBuf, key: String, found: Option<String>, expected: &'static str },
    #[error("{}: written with trace schema {found}; this program reads {supported}", file.display())]
    Version { file: PathBuf, found: u32, supported: u32 },
    #[error("{}: column `{column}` is {found}, expected {expected}", file.display())]
    Column { file: PathBuf, column: String, found: String, expected: String },
    #[error("{}: column `{column}` is empty at or after row {row}, expected a value", file.display())]
    Null { file: PathBuf, column: String, row: u64 },
    #[error("{}: row {row} holds no valid routing", file.display())]
    Routing { file: PathBuf, row: u64, source: RoutingError },
    #[error(
        "{}, row {row}: sample {found}, where {} lists sample {expected} for this row",
        file.display(), samples.display()
    )]
    SampleOrder { file: PathBuf, samples: PathBuf, row: u64, found: SampleId, expected: SampleId },
    #[error("{} holds {found} rows, {} lists {expected}", file.display(), samples.display())]
    RowCount { file: PathBuf, samples: PathBuf, found: u64, expected: u64 },

    #[error(transparent)]
    Listener(#[from] SinkError),
}

impl TraceError {
    /// The operating system's error at the bottom, where there is one: a full disk, a missing file.
    pub fn io_error(&self) -> Option<&io::Error> {
        let mut next: Option<&(dyn Error + 'static)> = Some(self);
        while let Some(error) = next {
            if let Some(io) = error.downcast_ref::<io::Error>() {
                return Some(io);
            }
            next = error.source();
        }
        None
    }
}

/// A decoder panicked on a damaged file.
#[derive(Debug, thiserror::Error)]
#[error("the decoder gave up: {message}")]
pub(crate) struct DecoderPanic {
    pub(crate) message: String,
}
