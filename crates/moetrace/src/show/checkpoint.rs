//! A checkpoint's tensors.

use moetrace_model::{Checkpoint, ModelConfig, StorageType};

use super::{bytes, table, thousands};

/// The model's numbers and every tensor.
pub(crate) fn checkpoint(config: &ModelConfig, checkpoint: &Checkpoint) -> String {
    let mut table = table(&["tensor", "type", "shape", "bytes"]);
    let mut count = 0u64;
    for tensor in checkpoint.tensors() {
        let shape: Vec<String> = tensor.shape.iter().map(ToString::to_string).collect();
        let size = thousands(tensor.bytes as u64);
        table.add_row([tensor.name.to_owned(), storage(tensor.storage).to_owned(), shape.join(" x "), size]);
        count += 1;
    }
    let g = config.geometry();
    format!(
        "{table}\n\n{}: {} layers, {} of them routed, {} of {} experts per token, {} parameters ({} per token), \
         {} tensors, {}\n",
        config.family(),
        config.layers(),
        g.layers().len(),
        g.chosen(),
        g.experts(),
        thousands(config.total_parameters()),
        thousands(config.active_parameters()),
        thousands(count),
        bytes(checkpoint.total_bytes())
    )
}

/// The name that safetensors headers use.
pub(crate) fn storage(storage: StorageType) -> &'static str {
    match storage {
        StorageType::F32 => "F32",
        StorageType::F16 => "F16",
        StorageType::Bf16 => "BF16",
        StorageType::Nf4 => "NF4",
        _ => "other",
    }
}
