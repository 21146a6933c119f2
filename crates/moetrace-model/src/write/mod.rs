//! Checkpoint folders in the making: planned as a whole, written tensor by tensor, visible when complete.
//!
//! Everything is written into `OUT.partial` beside `OUT`, one safetensors file after the other, each under its
//! final name only when it is complete and synced. A write that was cut short is continued by the next with the
//! same plan. When all files are there the folder gets its name; nothing is ever written into a folder that
//! exists.

mod config;
mod folder;
mod plan;
mod shard;

use std::ops::Range;
use std::path::{Path, PathBuf};

use moetrace_nf4::Nf4Tensor;
use serde_json::Value;

pub(crate) use self::config::quantization_config;
pub(crate) use self::plan::{OutputStorage, OutputTensor};
pub(crate) use self::shard::ShardFile;
use crate::ModelError;

/// Bytes after which a new file is begun: what transformers writes.
pub const SHARD_BYTES: u64 = 5_000_000_000;

/// What a write tells while it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WriteEvent<'a> {
    /// A file that an earlier attempt completed is kept.
    Kept {
        /// Its name.
        file: &'a str,
        /// Its tensors' bytes.
        bytes: u64,
    },
    /// A tensor is written.
    Tensor {
        /// Its name.
        name: &'a str,
        /// Its bytes as written.
        bytes: u64,
    },
}

/// A checkpoint folder that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenCheckpoint {
    /// Where it is.
    pub dir: PathBuf,
    /// Its safetensors files.
    pub files: usize,
    /// Tensors that a configuration knows; the parts of a quantised one count once.
    pub tensors: usize,
    /// Of these, those in 4 bits.
    pub quantised: usize,
    /// Bytes of all safetensors files.
    pub bytes: u64,
}

/// Takes a dense tensor's bytes piece by piece.
pub(crate) type Pieces<'a> = &'a mut dyn FnMut(&[u8]) -> Result<(), ModelError>;

/// Where the values come from. Tensors are numbered as in [`Order::tensors`].
pub(crate) trait Producer {
    /// Says which tensors will be asked for next, in this order: whoever can make several at once does so here.
    ///
    /// # Errors
    /// What [`quantised`](Self::quantised) fails with.
    fn prepare(&mut self, _: Range<usize>) -> Result<(), ModelError> {
        Ok(())
    }

    /// Hands over the bytes of a dense tensor, in order.
    fn dense(&mut self, tensor: usize, pieces: Pieces<'_>) -> Result<(), ModelError>;

    /// A tensor in 4 bits.
    fn quantised(&mut self, tensor: usize) -> Result<Nf4Tensor, ModelError>;
}

/// A checkpoint to be written.
#[derive(Clone)]
pub(crate) struct Order<'a> {
    /// The folder; it does not exist yet.
    pub(crate) out: &'a Path,
    /// The whole `config.json`.
    pub(crate) config: &'a Value,
    /// In the order in which they are written.
    pub(crate) tensors: &'a [OutputTensor],
    /// Bytes after which a new file is begun.
    pub(crate) shard_bytes: u64,
    /// Files to be copied beside the weights (tokenizer and the like).
    pub(crate) beside: &'a [PathBuf],
    /// What decides every byte: a write that was cut short is continued only if this is equal.
    pub(crate) identity: Value,
}

/// Writes a checkpoint folder, or what is missing of it.
pub(crate) fn write(
    order: &Order<'_>,
    producer: &mut dyn Producer,
    told: &mut dyn FnMut(WriteEvent<'_>),
) -> Result<WrittenCheckpoint, ModelError> {
    // `DIR/` is `DIR`.
    let out: PathBuf = order.out.components().collect();
    let order = &Order { out: &out, ..order.clone() };
    let partial = folder::Partial::begin(order)?;
    let shards = plan::shards(order.tensors, order.shard_bytes);
    let names: Vec<String> = (0..shards.len()).map(|i| plan::file_name(i, shards.len())).collect();
    for (range, name) in shards.iter().zip(&names) {
        let tensors = &order.tensors[range.clone()];
        if partial.has_shard(name, tensors) {
            told(WriteEvent::Kept { file: name, bytes: tensors.iter().map(OutputTensor::bytes).sum() });
            continue;
        }
        partial.write_shard(name, tensors, &mut |file| {
            for group in plan::groups(tensors) {
                producer.prepare(range.start + group.start..range.start + group.end)?;
                for number in group {
                    file.write(number, range.start + number, producer)?;
                    let tensor = &tensors[number];
                    told(WriteEvent::Tensor { name: &tensor.name, bytes: tensor.bytes() });
                }
            }
            Ok(())
        })?;
    }
    let bytes = partial.finish(order, &names)?;
    Ok(WrittenCheckpoint {
        dir: order.out.to_owned(),
        files: names.len(),
        tensors: order.tensors.len(),
        quantised: order.tensors.iter().filter(|t| matches!(t.storage, OutputStorage::Nf4 { .. })).count(),
        bytes,
    })
}
