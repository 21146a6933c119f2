//! What can be wrong with a checkpoint, a configuration or a pass.

use std::path::PathBuf;

use moetrace_nf4::Nf4Error;
use moetrace_routing::{LayerIndex, RoutingError, SinkError};

use crate::{ComputeDtype, Precision};

/// Everything that this crate refuses, with what was found and what was expected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the message of each variant says what its fields are")]
pub enum ModelError {
    #[error("cannot read {}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("{file} is {bytes} bytes, expected at most {limit}")]
    FileSize { file: String, bytes: u64, limit: u64 },
    #[error("{file} is not valid JSON: {source}")]
    Json { file: String, source: serde_json::Error },

    #[error("{file}: model_type is {found}, expected one of {expected}")]
    ModelType { file: String, found: String, expected: String },
    #[error("{file}: {field} = {found} is not supported, expected {expected}")]
    Unsupported { file: String, field: &'static str, found: String, expected: &'static str },
    #[error("{file}: {field} is missing, expected {expected}")]
    MissingField { file: String, field: &'static str, expected: String },
    #[error("{file}: {field} = {found}, expected {expected}")]
    FieldRange { file: String, field: &'static str, found: String, expected: String },
    #[error("{file}: the product of {what} does not fit 64 bits")]
    TooLarge { file: String, what: &'static str },

    #[error("{} holds no model.safetensors and no model.safetensors.index.json", dir.display())]
    NoWeights { dir: PathBuf },
    #[error("{} is a pickle file; pickle can run code and is never loaded", path.display())]
    Pickle { path: PathBuf },
    #[error("{file}: {tensor} is said to be in {found}, expected a file name inside the checkpoint's folder")]
    OutsideFolder { file: String, tensor: String, found: String },
    #[error("{file}: weight_map is {found}, expected an object of tensor names to file names")]
    WeightMap { file: String, found: &'static str },
    #[error("{file} lists {tensor} in {shard}, which does not hold it")]
    IndexMismatch { file: String, tensor: String, shard: String },
    #[error("{file} is {found} bytes, its header needs {expected}")]
    Truncated { file: String, found: u64, expected: u64 },
    #[error("{file} is {found} bytes, {} more than its header says", found.saturating_sub(*expected))]
    Overlong { file: String, found: u64, expected: u64 },
    #[error("{file}: the safetensors header is said to be {found} bytes, expected at most {limit}")]
    HeaderLength { file: String, found: u64, limit: u64 },
    #[error("{file}: the safetensors header is not valid: {source}")]
    Header { file: String, source: serde_json::Error },
    #[error("{file}: {tensor} is also in {other}, expected in one file only")]
    Duplicate { file: String, tensor: String, other: String },
    #[error("{file}: {tensor} has storage type {found}, expected F32, F16 or BF16")]
    StorageType { file: String, tensor: String, found: String },
    #[error("{file}: {tensor} is stored in the 4-bit code {found}, expected nf4")]
    FourBitCode { file: String, tensor: String, found: String },
    #[error("{file}: {tensor} is not stored in 4 bits")]
    NotFourBit { file: String, tensor: String },
    #[error("{file}: {tensor} is stored in 4 bits, which the experts of a layer in one tensor cannot be")]
    FourBitRole { file: String, tensor: String },
    #[error("{file}: {tensor}: {source}")]
    Nf4 { file: String, tensor: String, source: Nf4Error },
    #[error("{} is stored in 4 bits and can run in nf4 only, not in {found}", dir.display())]
    DensePrecision { dir: PathBuf, found: Precision },
    #[error("compute dtype {found} with {precision} weights, expected {expected}")]
    ComputeDtype { precision: Precision, found: ComputeDtype, expected: ComputeDtype },
    #[error("{file}: quantization_config says 4 bits, but no tensor is stored in 4 bits")]
    NothingQuantised { file: String },
    #[error("{file}: {tensor} is missing, expected with shape {expected:?}")]
    MissingTensor { file: String, tensor: String, expected: Vec<usize> },
    #[error("{file}: {tensor} has shape {found:?}, expected {expected:?}")]
    Shape { file: String, tensor: String, found: Vec<usize>, expected: Vec<usize> },
    #[error("{file}: {tensor} does not belong to a {model_type} model of this configuration")]
    ExtraTensor { file: String, tensor: String, model_type: &'static str },
    #[error("{} holds no tensor {tensor}", dir.display())]
    UnknownTensor { dir: PathBuf, tensor: String },
    #[error("bytes {start}..{end} of {tensor} were asked for, which has {bytes}")]
    TensorRange { tensor: String, start: usize, end: usize, bytes: usize },
    #[error("{tensor} is {expected} bytes, the buffer offered for it is {found}")]
    BufferLength { tensor: String, found: usize, expected: usize },

    #[error("{} is stored in 4 bits already", dir.display())]
    AlreadyFourBit { dir: PathBuf },
    #[error("{} exists already; a checkpoint is never written over", path.display())]
    OutputExists { path: PathBuf },
    #[error("{} is in the way and was not begun by an earlier call", path.display())]
    PartialForeign { path: PathBuf },
    #[error("{} is being written by another process", path.display())]
    OutputBusy { path: PathBuf },

    #[error("threads = {found}, expected 1 to {limit}")]
    Threads { found: usize, limit: usize },
    #[error("cannot start {threads} threads: {source}")]
    ThreadPool { threads: usize, source: rayon::ThreadPoolBuildError },
    #[error("row {row}: token id {found} is outside the vocabulary of {vocab}")]
    TokenRange { row: usize, found: u32, vocab: usize },
    #[error("router logits of layer {layer}, row {row}: {found}, expected a finite number")]
    NotFinite { layer: LayerIndex, row: usize, found: f32 },
    #[error("token loss of row {row}: {found}, expected a finite number")]
    LossNotFinite { row: usize, found: f32 },

    #[error("a pass of {found} tokens, expected at most the {expected} that the engine has room for")]
    PassTooLarge { found: usize, expected: usize },
    #[error("{what}: {found}, expected at most {limit} on a GPU")]
    GpuLimit { what: &'static str, found: usize, limit: usize },
    #[error("{what}: out of memory")]
    OutOfMemory { what: &'static str },
    #[error("{what} were asked for, which the engine was not made for")]
    NotPlanned { what: &'static str },
    #[error(transparent)]
    Cuda(#[from] moetrace_cuda::CudaError),
    #[error(transparent)]
    Routing(#[from] RoutingError),
    #[error(transparent)]
    Sink(#[from] SinkError),
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl ModelError {
    /// Whether memory of the GPU, or of whatever else computes, ran out: with less of it in use the same may work.
    pub fn is_out_of_memory(&self) -> bool {
        match self {
            Self::OutOfMemory { .. } => true,
            Self::Cuda(error) => error.is_out_of_memory(),
            _ => false,
        }
    }
}
