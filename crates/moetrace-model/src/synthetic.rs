//! Small random checkpoints with real names and shapes: deterministic, for tests, benches and trials.
//!
//! Weights are scaled so that activations keep their size and routers neither spread evenly nor collapse.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::checkpoint::{ExpertLayout, for_each_expected};
use crate::{Family, ModelConfig, ModelError, StorageType};

/// How a random checkpoint is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyntheticSettings {
    /// The same seed gives the same bytes.
    pub seed: u64,
    /// Type of every tensor.
    pub storage: StorageType,
    /// One tensor for all experts of a layer (`gate_up_proj`) instead of three for each.
    pub fused_experts: bool,
}

impl Default for SyntheticSettings {
    fn default() -> Self {
        Self { seed: 0, storage: StorageType::F32, fused_experts: false }
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
    let text = format!("{config:#}\n");
    let path = dir.join("config.json");
    let parsed = ModelConfig::parse(text.as_bytes(), &path.display().to_string())?;
    fs::write(&path, text).map_err(|source| ModelError::Io { path, source })?;

    let mut shapes: Vec<(String, Vec<usize>)> = Vec::new();
    let layout =
        ExpertLayout { fused: settings.fused_experts, ..ExpertLayout::per_expert(parsed.family().rules()) };
    for_each_expected(&parsed, |_| layout, &mut |name, shape| {
        shapes.push((name, shape.to_vec()));
        Ok(())
    })?;
    let path = dir.join("model.safetensors");
    write_tensors(&path, &shapes, settings).map_err(|source| ModelError::Io { path, source })
}

fn write_tensors(
    path: &Path,
    shapes: &[(String, Vec<usize>)],
    settings: &SyntheticSettings,
) -> std::io::Result<()> {
    let dtype = match settings.storage {
        StorageType::F32 => "F32",
        StorageType::F16 => "F16",
        StorageType::Bf16 => "BF16",
    };
    let mut header = Map::new();
    let mut end = 0;
    for (name, shape) in shapes {
        let start = end;
        end += shape.iter().product::<usize>() * settings.storage.size();
        header.insert(name.clone(), json!({"dtype": dtype, "shape": shape, "data_offsets": [start, end]}));
    }
    let mut header = serde_json::to_vec(&header)?;
    // The reference implementation pads its header with spaces so that tensors begin at multiples of 8.
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = std::io::BufWriter::new(File::create(path)?);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(&header)?;
    for (number, (name, shape)) in shapes.iter().enumerate() {
        let mut random = Random::new(settings.seed, number as u64);
        let scale = Scale::of(name, shape);
        for _ in 0..shape.iter().product::<usize>() {
            let value = scale.mean + scale.deviation * random.normal();
            match settings.storage {
                StorageType::F32 => file.write_all(&value.to_le_bytes())?,
                StorageType::F16 => file.write_all(&half::f16::from_f32(value).to_le_bytes())?,
                StorageType::Bf16 => file.write_all(&half::bf16::from_f32(value).to_le_bytes())?,
            }
        }
    }
    file.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()
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
struct Random(u64);

impl Random {
    fn new(seed: u64, stream: u64) -> Self {
        let mut mixed = Self(seed);
        let start = mixed.next().wrapping_add(stream.wrapping_mul(0xD134_2543_DE82_EF95));
        Self(start)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
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
