//! A dense checkpoint written anew in 4 bits, tensor by tensor.

use std::fs;
use std::path::{Path, PathBuf};

use moetrace_nf4::{ElementType, Nf4Tensor, Source};
use serde_json::{Value, json};

use crate::checkpoint::{self, Checkpoint, CheckpointSettings, ExpertLayout, LayerNames, TensorRole};
use crate::write::{self, Order, OutputStorage, OutputTensor, Pieces, Producer, quantization_config};
use crate::{ModelConfig, ModelError, Quantisation, SHARD_BYTES, WriteEvent, WrittenCheckpoint};

/// Bytes of a dense tensor that are held at once.
const PIECE: usize = 16 << 20;
/// Larger files beside the weights are no tokenizer and are left behind.
const BESIDE_BYTES: u64 = 128 << 20;

/// How a checkpoint is quantised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuantiseSettings {
    /// Block size, double quantisation, routers.
    pub quantisation: Quantisation,
    /// Bytes after which a new file is begun.
    pub shard_bytes: u64,
}

impl Default for QuantiseSettings {
    fn default() -> Self {
        Self { quantisation: Quantisation::default(), shard_bytes: SHARD_BYTES }
    }
}

/// Writes the checkpoint in `source` to `out` with its projections in NF4, as bitsandbytes stores them; the rest
/// is copied as it is. Experts of a layer in one tensor are written as separate experts, which is how the
/// reference models name them. Quantises on the current thread pool.
///
/// The source is read with plain reads, one tensor at a time, so that memory stays at the size of the largest
/// projection. `out` must not exist; a call that was cut short is continued by the next.
///
/// # Errors
/// Whatever [`Checkpoint::open`] and the comparison with `config.json` refuse;
/// [`ModelError::AlreadyFourBit`]; [`ModelError::Nf4`] for a tensor that cannot be quantised;
/// [`ModelError::OutputExists`], [`ModelError::OutputBusy`] or [`ModelError::Io`], which leave what is complete
/// in `OUT.partial`.
pub fn quantise_checkpoint(
    source: &Path,
    out: &Path,
    settings: &QuantiseSettings,
    told: &mut dyn FnMut(WriteEvent<'_>),
) -> Result<WrittenCheckpoint, ModelError> {
    let checkpoint = Checkpoint::open(source, &CheckpointSettings { mmap: false })?;
    let config = ModelConfig::read(source)?;
    if checkpoint.is_four_bit() || config.is_four_bit() {
        return Err(ModelError::AlreadyFourBit { dir: source.to_owned() });
    }
    let layouts = checkpoint::check(&config, &checkpoint)?;
    let parts = parts(&config, &checkpoint, &layouts, settings.quantisation)?;
    let tensors: Vec<OutputTensor> = parts.iter().map(|part| part.tensor.clone()).collect();
    let mut json = config_json(&checkpoint)?;
    json["quantization_config"] = quantization_config(settings.quantisation, ElementType::Bf16);
    let beside = files_beside(source)?;
    let order = Order {
        out,
        config: &json,
        tensors: &tensors,
        shard_bytes: settings.shard_bytes,
        beside: &beside,
        identity: identity(&checkpoint, settings)?,
    };
    let mut reader = Reader { checkpoint: &checkpoint, parts: &parts, buffer: Vec::new() };
    write::write(&order, &mut reader, told)
}

/// A tensor to be written and the elements that it is made of.
struct Part {
    tensor: OutputTensor,
    /// Tensor of the source.
    from: String,
    /// Its first byte there.
    start: usize,
}

fn parts(
    config: &ModelConfig,
    checkpoint: &Checkpoint,
    layouts: &[ExpertLayout],
    quantisation: Quantisation,
) -> Result<Vec<Part>, ModelError> {
    let mut parts = Vec::new();
    let mut add = |from: &str, name: String, shape: &[usize], start: usize, role: TensorRole| {
        let element = checkpoint.tensor(from).and_then(|entry| entry.storage.element());
        let element = element.unwrap_or(ElementType::F32);
        let storage = if role.is_quantised(config.family(), quantisation) {
            OutputStorage::Nf4 { element, settings: quantisation.nf4 }
        } else {
            OutputStorage::Dense(element)
        };
        let tensor = OutputTensor { name, shape: shape.to_vec(), storage };
        let start = start * element.size();
        parts.push(Part { tensor, from: from.to_owned(), start });
    };
    checkpoint::for_each_expected(config, |layer| layouts[layer], &mut |name, shape, role| {
        match (role, shape) {
            (TensorRole::FusedExperts, [experts, rows, columns]) => {
                for (expert, piece) in separate(config, &name, *experts, [*rows, *columns]) {
                    let start = expert * rows * columns + piece.first_row * columns;
                    add(&name, piece.name, &[piece.rows, *columns], start, TensorRole::Projection);
                }
            }
            _ => add(&name, own_name(config, &name), shape, 0, role),
        }
        Ok(())
    })?;
    Ok(parts)
}

/// A projection inside a fused tensor.
struct Piece {
    name: String,
    first_row: usize,
    rows: usize,
}

/// The projections of `[E, rows, columns]` under the names that the reference model gives them.
fn separate(config: &ModelConfig, fused: &str, experts: usize, [rows, _]: [usize; 2]) -> Vec<(usize, Piece)> {
    let rules = config.family().rules();
    let [gate, up, down] = rules.expert_projections;
    let layer = fused.split('.').nth(2).and_then(|layer| layer.parse().ok()).unwrap_or(0);
    let names = LayerNames { layer, layout: ExpertLayout::per_expert(rules) };
    let of = |expert: usize| {
        let piece = |name, first_row, rows| (expert, Piece { name, first_row, rows });
        if fused.ends_with("gate_up_proj") {
            let half = rows / 2;
            vec![piece(names.expert(expert, gate), 0, half), piece(names.expert(expert, up), half, half)]
        } else {
            vec![piece(names.expert(expert, down), 0, rows)]
        }
    };
    (0..experts).flat_map(of).collect()
}

/// A name as the reference model has it: fused checkpoints call every MoE block `mlp`.
fn own_name(config: &ModelConfig, name: &str) -> String {
    let block = config.family().rules().moe_block;
    let router = format!(".{block}.gate.weight");
    name.strip_suffix(".mlp.gate.weight").map_or_else(|| name.to_owned(), |layer| format!("{layer}{router}"))
}

/// Reads what is to be written.
struct Reader<'a> {
    checkpoint: &'a Checkpoint,
    parts: &'a [Part],
    buffer: Vec<u8>,
}

impl Producer for Reader<'_> {
    fn dense(&mut self, tensor: usize, pieces: Pieces<'_>) -> Result<(), ModelError> {
        let part = &self.parts[tensor];
        let bytes = part.tensor.bytes() as usize;
        for start in (0..bytes).step_by(PIECE) {
            self.buffer.resize(PIECE.min(bytes - start), 0);
            self.checkpoint.read_part_into(&part.from, part.start + start, &mut self.buffer)?;
            pieces(&self.buffer)?;
        }
        Ok(())
    }

    fn quantised(&mut self, tensor: usize) -> Result<Nf4Tensor, ModelError> {
        let part = &self.parts[tensor];
        let OutputStorage::Nf4 { element, settings } = part.tensor.storage else {
            return Err(ModelError::UnknownTensor {
                dir: self.checkpoint.dir().to_owned(),
                tensor: part.tensor.name.clone(),
            });
        };
        self.buffer.resize(part.tensor.elements() * element.size(), 0);
        self.checkpoint.read_part_into(&part.from, part.start, &mut self.buffer)?;
        let source = Source { bytes: &self.buffer, element };
        Nf4Tensor::quantise(source, &part.tensor.shape, settings).map_err(|source| {
            let file = self.checkpoint.tensor(&part.from).map(|entry| entry.file.display().to_string());
            ModelError::Nf4 { file: file.unwrap_or_default(), tensor: part.from.clone(), source }
        })
    }
}

fn config_json(checkpoint: &Checkpoint) -> Result<Value, ModelError> {
    let path = checkpoint.config_file();
    let bytes = fs::read(&path).map_err(|source| ModelError::Io { path: path.clone(), source })?;
    serde_json::from_slice(&bytes)
        .map_err(|source| ModelError::Json { file: path.display().to_string(), source })
}

/// Files of the source, their sizes and times, and the settings: whether a write that was cut short can go on.
fn identity(checkpoint: &Checkpoint, settings: &QuantiseSettings) -> Result<Value, ModelError> {
    let mut files = Vec::new();
    for path in checkpoint.files() {
        let io = |source| ModelError::Io { path: path.to_owned(), source };
        let found = fs::metadata(path).map_err(io)?;
        let changed = found.modified().map_err(io)?.duration_since(std::time::UNIX_EPOCH);
        let changed = changed.map_or(0, |since| since.as_nanos() as u64);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        files.push(json!({ "name": name, "bytes": found.len(), "changed": changed }));
    }
    let Quantisation { nf4, router } = settings.quantisation;
    Ok(json!({
        "quantise": files,
        "config": config_json(checkpoint)?,
        "block_size": nf4.block.get(),
        "double_quant": nf4.double_quant,
        "routers": router,
        "shard_bytes": settings.shard_bytes,
    }))
}

/// What is copied with a checkpoint: tokenizer, generation settings, licence and code of the reference model, all
/// small files that are no weights, in name order.
///
/// # Errors
/// [`ModelError::Io`] where the folder cannot be listed.
pub fn files_beside(dir: &Path) -> Result<Vec<PathBuf>, ModelError> {
    let io = |source| ModelError::Io { path: dir.to_owned(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("");
        let kind = matches!(extension, "json" | "txt" | "model" | "jinja" | "py" | "md")
            || name.to_uppercase().starts_with("LICENSE");
        let weights = name == "config.json" || name.ends_with(".index.json");
        let small = fs::metadata(&path).is_ok_and(|found| found.is_file() && found.len() <= BESIDE_BYTES);
        if kind && !weights && small {
            found.push(path);
        }
    }
    found.sort_unstable();
    Ok(found)
}
