//! Random checkpoints with real names and shapes, of any size: deterministic, for tests, benches and trials.
//!
//! Weights are scaled so that activations keep their size and routers neither spread evenly nor collapse.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use moetrace_nf4::{ElementType, Nf4Settings, Nf4Tensor, Source};
use moetrace_routing::{SampleId, Span, TokenBatch, TokenId};
use rayon::prelude::*;
use serde_json::{Value, json};

use crate::checkpoint::{ExpertLayout, for_each_expected};
use crate::write::{
    Order, OutputStorage, OutputTensor, Pieces, Producer, ShardFile, quantization_config, write,
};
use crate::{Family, ModelConfig, ModelError, Quantisation, SHARD_BYTES, WriteEvent, WrittenCheckpoint};

/// Elements of a dense tensor that are held at once.
const PIECE: usize = 16 << 20;

/// How a random checkpoint is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyntheticSettings {
    /// The same seed gives the same bytes.
    pub seed: u64,
    /// Type of every tensor, or what it is quantised from.
    pub element: ElementType,
    /// Store the projections in 4 bits.
    pub quantisation: Option<Quantisation>,
    /// One tensor for all experts of a layer (`gate_up_proj`) instead of three for each; not in 4 bits.
    pub fused_experts: bool,
}

impl Default for SyntheticSettings {
    fn default() -> Self {
        Self { seed: 0, element: ElementType::F32, quantisation: None, fused_experts: false }
    }
}

/// The `config.json` of a very small model of a family: 3 layers, 8 experts of which 3 are chosen.
pub fn tiny_config(family: Family) -> Value {
    let mut config = json!({
        "model_type": family.model_type(), "hidden_act": "silu", "hidden_size": 32, "vocab_size": 96,
        "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 40,
        "num_experts_per_tok": 3, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "bos_token_id": 1,
        "tie_word_embeddings": false, "norm_topk_prob": false
    });
    let rules = family.rules();
    config[rules.experts_field] = json!(8);
    config[rules.expert_width_field] = json!(24);
    match family {
        Family::DeepSeek => {
            config["n_shared_experts"] = json!(2);
            config["first_k_dense_replace"] = json!(1);
        }
        Family::Qwen2Moe => config["shared_expert_intermediate_size"] = json!(40),
        Family::Qwen3Moe => {
            config["head_dim"] = json!(16);
            config["norm_topk_prob"] = json!(true);
        }
        Family::Mixtral | Family::Olmoe => {}
    }
    config
}

/// Writes `config.json` and `model.safetensors` into `dir`, which exists.
///
/// # Errors
/// What [`ModelConfig::parse`] refuses in `config`, and [`ModelError::Io`].
pub fn write_checkpoint(dir: &Path, config: &Value, settings: &SyntheticSettings) -> Result<(), ModelError> {
    let path = dir.join("config.json");
    let (tensors, config) = tensors(config, &path.display().to_string(), settings)?;
    fs::write(&path, format!("{config:#}\n")).map_err(|source| ModelError::Write { path, source })?;
    let mut file = ShardFile::create(&dir.join("model.safetensors"), &tensors)?;
    let mut random = RandomTensors::new(settings.seed, &tensors);
    for number in 0..tensors.len() {
        file.write(number, number, &mut random)?;
    }
    file.finish()
}

/// A pass of so many texts of `length` random tokens each, the same for the same seed: what speed is measured with.
///
/// # Errors
/// [`ModelError::Routing`] for texts without tokens.
pub fn random_batch(
    samples: usize,
    length: usize,
    vocab: usize,
    seed: u64,
) -> Result<TokenBatch, ModelError> {
    let mut random = Random::new(seed, 0);
    let span = |sample: usize| Span {
        sample: SampleId(sample as u32),
        dataset: "random".into(),
        label: None,
        start: sample * length,
        len: length,
        begins_with_bos: false,
    };
    let ids = (0..samples * length).map(|_| TokenId((random.next() % vocab.max(1) as u64) as u32)).collect();
    let positions = (0..samples).flat_map(|_| 0..length as u32).collect();
    Ok(TokenBatch::new(ids, positions, (0..samples).map(span).collect())?)
}

/// Writes a checkpoint folder `out`, which does not exist, of any size: file by file, continued if it is cut
/// short. `config` is the whole `config.json`; the files `beside` are copied into the folder.
///
/// # Errors
/// What [`ModelConfig::parse`] refuses in `config`, [`ModelError::OutputExists`], [`ModelError::OutputBusy`] and
/// [`ModelError::Io`].
pub fn write_folder(
    out: &Path,
    config: &Value,
    settings: &SyntheticSettings,
    beside: &[PathBuf],
    told: &mut dyn FnMut(WriteEvent<'_>),
) -> Result<WrittenCheckpoint, ModelError> {
    let (tensors, config) = tensors(config, "config.json", settings)?;
    let order = Order {
        out,
        config: &config,
        tensors: &tensors,
        shard_bytes: SHARD_BYTES,
        beside,
        identity: json!({ "random": format!("{settings:?}"), "config": &config }),
    };
    let mut random = RandomTensors::new(settings.seed, &tensors);
    write(&order, &mut random, told)
}

/// The tensors that a configuration asks for, and the configuration as it is written.
fn tensors(
    config: &Value,
    file: &str,
    settings: &SyntheticSettings,
) -> Result<(Vec<OutputTensor>, Value), ModelError> {
    let parsed = ModelConfig::parse(config.to_string().as_bytes(), file)?;
    let mut config = config.clone();
    match settings.quantisation {
        Some(quantisation) => {
            config["quantization_config"] = quantization_config(quantisation, ElementType::Bf16);
        }
        None => {
            if let Some(object) = config.as_object_mut() {
                object.shift_remove("quantization_config");
            }
        }
    }
    let mut tensors = Vec::new();
    let fused = settings.fused_experts && settings.quantisation.is_none();
    let layout = ExpertLayout { fused, ..ExpertLayout::per_expert(parsed.family().rules()) };
    for_each_expected(&parsed, |_| layout, &mut |name, shape, role| {
        let element = settings.element;
        let storage = match settings.quantisation {
            Some(quantisation) if role.is_quantised(parsed.family(), quantisation) => {
                OutputStorage::Nf4 { element, settings: quantisation.nf4 }
            }
            _ => OutputStorage::Dense(element),
        };
        tensors.push(OutputTensor { name, shape: shape.to_vec(), storage });
        Ok(())
    })?;
    Ok((tensors, config))
}

/// Random values, each a function of seed, tensor and place alone.
struct RandomTensors<'a> {
    seed: u64,
    tensors: &'a [OutputTensor],
    buffer: Vec<u8>,
    /// Tensors in 4 bits that were made before they are asked for.
    prepared: BTreeMap<usize, Nf4Tensor>,
}

impl<'a> RandomTensors<'a> {
    fn new(seed: u64, tensors: &'a [OutputTensor]) -> Self {
        Self { seed, tensors, buffer: Vec::new(), prepared: BTreeMap::new() }
    }

    /// Elements of a tensor from `start` on as bytes, as many as `bytes` has room for.
    fn fill(&self, tensor: usize, element: ElementType, start: usize, bytes: &mut [u8]) {
        let OutputTensor { name, shape, .. } = &self.tensors[tensor];
        let (random, scale) = (Random::new(self.seed, tensor as u64), Scale::of(name, shape));
        let size = element.size();
        bytes.par_chunks_mut(PIECE / 16 * size).enumerate().for_each(|(chunk, bytes)| {
            let mut random = random.at((start + chunk * (PIECE / 16)) as u64);
            for place in bytes.chunks_exact_mut(size) {
                let value = scale.mean + scale.deviation * random.normal();
                match element {
                    ElementType::F32 => place.copy_from_slice(&value.to_le_bytes()),
                    ElementType::F16 => place.copy_from_slice(&half::f16::from_f32(value).to_le_bytes()),
                    ElementType::Bf16 => place.copy_from_slice(&half::bf16::from_f32(value).to_le_bytes()),
                }
            }
        });
    }

    fn made(&self, tensor: usize) -> Result<Nf4Tensor, ModelError> {
        let OutputTensor { name, shape, storage } = &self.tensors[tensor];
        let (element, nf4) = match *storage {
            OutputStorage::Nf4 { element, settings } => (element, settings),
            OutputStorage::Dense(element) => (element, Nf4Settings::default()),
        };
        let mut bytes = vec![0; self.tensors[tensor].elements() * element.size()];
        self.fill(tensor, element, 0, &mut bytes);
        Nf4Tensor::quantise(Source { bytes: &bytes, element }, shape, nf4).map_err(|source| ModelError::Nf4 {
            file: "config.json".into(),
            tensor: name.clone(),
            source,
        })
    }
}

impl Producer for RandomTensors<'_> {
    fn prepare(&mut self, tensors: Range<usize>) -> Result<(), ModelError> {
        let in_four_bits =
            |tensor: &usize| matches!(self.tensors[*tensor].storage, OutputStorage::Nf4 { .. });
        let made = tensors.into_par_iter().filter(in_four_bits);
        self.prepared =
            made.map(|tensor| Ok((tensor, self.made(tensor)?))).collect::<Result<_, ModelError>>()?;
        Ok(())
    }

    fn dense(&mut self, tensor: usize, pieces: Pieces<'_>) -> Result<(), ModelError> {
        let OutputStorage::Dense(element) = self.tensors[tensor].storage else { return Ok(()) };
        let elements = self.tensors[tensor].elements();
        let mut buffer = std::mem::take(&mut self.buffer);
        for start in (0..elements).step_by(PIECE) {
            buffer.resize(PIECE.min(elements - start) * element.size(), 0);
            self.fill(tensor, element, start, &mut buffer);
            pieces(&buffer)?;
        }
        self.buffer = buffer;
        Ok(())
    }

    fn quantised(&mut self, tensor: usize) -> Result<Nf4Tensor, ModelError> {
        match self.prepared.remove(&tensor) {
            Some(made) => Ok(made),
            None => self.made(tensor),
        }
    }
}

/// Distribution of a tensor's values.
struct Scale {
    mean: f32,
    deviation: f32,
}

impl Scale {
    fn of(name: &str, shape: &[usize]) -> Self {
        let inputs = shape.last().copied().unwrap_or(1) as f32;
        if name.ends_with("norm.weight") {
            Self { mean: 1.0, deviation: 0.05 }
        } else if shape.len() == 1 {
            Self { mean: 0.0, deviation: 0.1 }
        } else if name.ends_with("embed_tokens.weight") {
            Self { mean: 0.0, deviation: 1.0 }
        } else {
            // Unit rows in, unit rows out: logits of a router then have a deviation of about 1.5, so that
            // its softmax is clearly neither flat nor a single expert.
            let gain = if name.ends_with("gate.weight") { 1.5 } else { 1.0 };
            Self { mean: 0.0, deviation: gain / inputs.sqrt() }
        }
    }
}

/// `SplitMix64` (Steele, Lea and Flood 2014): every tensor has a stream of its own.
#[derive(Clone, Copy)]
struct Random(u64);

/// What its state grows by with each number.
const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

impl Random {
    fn new(seed: u64, stream: u64) -> Self {
        let mut mixed = Self(seed);
        let start = mixed.next().wrapping_add(stream.wrapping_mul(0xD134_2543_DE82_EF95));
        Self(start)
    }

    /// The stream from its number `index` on.
    fn at(self, index: u64) -> Self {
        Self(self.0.wrapping_add(index.wrapping_mul(GAMMA)))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GAMMA);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Four uniform numbers summed (Irwin-Hall), scaled to deviation 1: near enough to normal, the same on
    /// every machine, and no logarithm.
    fn normal(&mut self) -> f32 {
        let bits = self.next();
        let uniform = |part: u32| ((bits >> (16 * part)) & 0xFFFF) as f32 / 65536.0;
        let sum = uniform(0) + uniform(1) + uniform(2) + uniform(3);
        // The sum has mean 2 - 2/65536 and variance 4/12.
        (sum - (2.0 - 2.0 / 65536.0)) * 3f32.sqrt()
    }
}
