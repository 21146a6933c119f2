//! Other shapes of the same families against a plain f64 forward pass that shares no code with the engine:
//! one token at a time, one loop for each sum, straight from the definitions.

use std::collections::HashMap;
use std::path::Path;

use moetrace_model::synthetic::{SyntheticSettings, tiny_config, write_checkpoint};
use moetrace_model::{Checkpoint, CheckpointSettings, CpuEngine, CpuSettings, Family, ProbePoint};
use moetrace_routing::LayerIndex;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::recorder::{Recorder, Seen, batch, tokens};

struct Naive {
    config: Value,
    weights: HashMap<String, (Vec<usize>, Vec<f64>)>,
}

/// What the engine's recording is compared with.
struct Forward {
    router_logits: HashMap<usize, Vec<f64>>,
    logits: Vec<f64>,
}

impl Naive {
    fn open(dir: &Path, config: &Value) -> Self {
        let store = Checkpoint::open(dir, &CheckpointSettings { mmap: false }).unwrap();
        let read = |name: &str, bytes: usize| {
            let mut buffer = vec![0; bytes];
            store.read_into(name, &mut buffer).unwrap();
            buffer.as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect()
        };
        let weights = store.tensors().map(|t| (t.name.to_owned(), (t.shape.to_vec(), read(t.name, t.bytes))));
        Self { config: config.clone(), weights: weights.collect() }
    }

    fn number(&self, field: &str) -> Option<usize> {
        self.config.get(field).and_then(Value::as_u64).map(|n| n as usize)
    }

    fn flag(&self, field: &str) -> bool {
        self.config.get(field).and_then(Value::as_bool).unwrap_or(false)
    }

    fn vector(&self, name: &str) -> &[f64] {
        &self.weights[name].1
    }

    /// W x + b, the bias where the checkpoint has one.
    fn linear(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let (shape, values) = &self.weights[&format!("{name}.weight")];
        let bias = self.weights.get(&format!("{name}.bias"));
        let row = |r: usize| -> f64 {
            let sum: f64 = (0..shape[1]).map(|c| values[r * shape[1] + c] * x[c]).sum();
            sum + bias.map_or(0.0, |bias| bias.1[r])
        };
        (0..shape[0]).map(row).collect()
    }

    fn norm(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let eps = self.config["rms_norm_eps"].as_f64().unwrap();
        let mean = x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64;
        let weight = self.vector(&format!("{name}.weight"));
        x.iter().zip(weight).map(|(v, w)| v / (mean + eps).sqrt() * w).collect()
    }

    fn swiglu(&self, names: [String; 3], x: &[f64]) -> Vec<f64> {
        let [gate, up, down] = names;
        let gate = self.linear(&gate, x).into_iter().map(|g| g / (1.0 + (-g).exp()));
        let active: Vec<f64> = gate.zip(self.linear(&up, x)).map(|(g, u)| g * u).collect();
        self.linear(&down, &active)
    }

    fn block(&self, module: &str, x: &[f64]) -> Vec<f64> {
        self.swiglu(["gate_proj", "up_proj", "down_proj"].map(|n| format!("{module}.{n}")), x)
    }

    /// Queries or keys of one token: projected, normed as the family does, rotated. One list for each head.
    fn heads(
        &self,
        layer: usize,
        part: &str,
        width: usize,
        x: &[f64],
        position: Option<usize>,
    ) -> Vec<Vec<f64>> {
        let attention = format!("model.layers.{layer}.self_attn");
        let mut y = self.linear(&format!("{attention}.{part}_proj"), x);
        let norm = format!("{attention}.{part}_norm");
        let norm_width = self.weights.get(&format!("{norm}.weight")).map(|w| w.1.len());
        if norm_width.is_some_and(|w| w == y.len() && w != width) {
            y = self.norm(&norm, &y);
        }
        let per_head = norm_width.is_some_and(|w| w == width);
        let rotate = |head: &[f64]| -> Vec<f64> {
            let head = if per_head { self.norm(&norm, head) } else { head.to_vec() };
            let Some(position) = position else { return head };
            let turned = |i: usize| if i < width / 2 { -head[i + width / 2] } else { head[i - width / 2] };
            let theta = self.config["rope_theta"].as_f64().unwrap();
            let angle =
                |i: usize| position as f64 / theta.powf((2 * (i % (width / 2))) as f64 / width as f64);
            (0..width).map(|i| head[i] * angle(i).cos() + turned(i) * angle(i).sin()).collect()
        };
        y.chunks(width).map(rotate).collect()
    }

    fn attention(&self, layer: usize, inputs: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let heads = self.number("num_attention_heads").unwrap();
        let width = self.number("head_dim").unwrap_or(self.number("hidden_size").unwrap() / heads);
        let part = |part: &str, rotated: bool| -> Vec<Vec<Vec<f64>>> {
            let of = |(t, x): (usize, &Vec<f64>)| self.heads(layer, part, width, x, rotated.then_some(t));
            inputs.iter().enumerate().map(of).collect()
        };
        let (q, k, v) = (part("q", true), part("k", true), part("v", false));
        let group = heads / k[0].len();
        let mix = |t: usize, head: usize| -> Vec<f64> {
            let dot =
                |s: usize| -> f64 { q[t][head].iter().zip(&k[s][head / group]).map(|(a, b)| a * b).sum() };
            let scores: Vec<f64> = (0..=t).map(|s| (dot(s) / (width as f64).sqrt()).exp()).collect();
            let total: f64 = scores.iter().sum();
            (0..width).map(|i| (0..=t).map(|s| scores[s] / total * v[s][head / group][i]).sum()).collect()
        };
        let output = format!("model.layers.{layer}.self_attn.o_proj");
        let of = |t| self.linear(&output, &(0..heads).flat_map(|head| mix(t, head)).collect::<Vec<_>>());
        (0..inputs.len()).map(of).collect()
    }

    /// Router logits, and experts and shared block together.
    fn moe(&self, module: &str, x: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let logits = self.linear(&format!("{module}.gate"), x);
        let total: f64 = logits.iter().map(|l| l.exp()).sum();
        let mut ranked: Vec<(usize, f64)> = logits.iter().map(|l| l.exp() / total).enumerate().collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
        ranked.truncate(self.number("num_experts_per_tok").unwrap());
        let sum: f64 = ranked.iter().map(|r| r.1).sum();
        let model_type = self.config["model_type"].as_str().unwrap();
        let single = model_type == "deepseek" && ranked.len() == 1;
        let renormalise = model_type == "mixtral" || (self.flag("norm_topk_prob") && !single);
        let names =
            if model_type == "mixtral" { ["w1", "w3", "w2"] } else { ["gate_proj", "up_proj", "down_proj"] };
        let mut out = vec![0.0; x.len()];
        for (expert, score) in ranked {
            let y = self.swiglu(names.map(|n| format!("{module}.experts.{expert}.{n}")), x);
            let weight = if renormalise { score / sum } else { score };
            out.iter_mut().zip(y).for_each(|(out, y)| *out += weight * y);
        }
        let shared = match model_type {
            "deepseek" if self.number("n_shared_experts").is_some_and(|n| n > 0) => {
                Some((self.block(&format!("{module}.shared_experts"), x), 1.0))
            }
            "qwen2_moe" => {
                let gate = self.linear(&format!("{module}.shared_expert_gate"), x)[0];
                Some((self.block(&format!("{module}.shared_expert"), x), 1.0 / (1.0 + (-gate).exp())))
            }
            _ => None,
        };
        if let Some((y, gate)) = shared {
            out.iter_mut().zip(y).for_each(|(out, y)| *out += gate * y);
        }
        (logits, out)
    }

    fn run(&self, ids: &[u32]) -> Forward {
        let d = self.number("hidden_size").unwrap();
        let table = self.vector("model.embed_tokens.weight");
        let mut x: Vec<Vec<f64>> = ids.iter().map(|id| table[*id as usize * d..][..d].to_vec()).collect();
        let mut router_logits = HashMap::new();
        for layer in 0..self.number("num_hidden_layers").unwrap() {
            let prefix = format!("model.layers.{layer}");
            let normed: Vec<_> =
                x.iter().map(|x| self.norm(&format!("{prefix}.input_layernorm"), x)).collect();
            let attended = self.attention(layer, &normed);
            let blocks = ["mlp", "block_sparse_moe"].map(|block| format!("{prefix}.{block}"));
            let moe = blocks.iter().find(|b| self.weights.contains_key(&format!("{b}.gate.weight")));
            for (x, a) in x.iter_mut().zip(attended) {
                x.iter_mut().zip(a).for_each(|(x, a)| *x += a);
                let h = self.norm(&format!("{prefix}.post_attention_layernorm"), x);
                let y = match moe {
                    None => self.block(&blocks[0], &h),
                    Some(module) => {
                        let (logits, y) = self.moe(module, &h);
                        router_logits.entry(layer).or_insert_with(Vec::new).extend(logits);
                        y
                    }
                };
                x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
            }
        }
        let head = if self.flag("tie_word_embeddings") { "model.embed_tokens" } else { "lm_head" };
        let logits = x.iter().flat_map(|x| self.linear(head, &self.norm("model.norm", x))).collect();
        Forward { router_logits, logits }
    }
}

fn compare(config: &Value, seed: u64) {
    let dir = tempfile::tempdir().unwrap();
    let settings = SyntheticSettings { seed, ..SyntheticSettings::default() };
    write_checkpoint(dir.path(), config, &settings).unwrap();
    let samples = [tokens(seed as u32, 9, 96), tokens(7, 5, 96)];
    let naive = Naive::open(dir.path(), config);
    let mut engine = CpuEngine::open(dir.path(), &CpuSettings::default()).unwrap();
    let (mut recorder, mut seen) = (Recorder::default(), Seen::default());
    engine.run_with_probe(&batch(&samples), &mut recorder, &mut seen).unwrap();
    let expected = samples.each_ref().map(|sample| naive.run(sample));
    let check = |what: &str, found: &[f32], expected: Vec<f64>| {
        assert_eq!(found.len(), expected.len(), "{what}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(
                (f64::from(*found) - expected).abs() < 1e-4,
                "{what}: {found} and {expected} in {config}"
            );
        }
    };
    // A near tie may send a token to another expert; the random margins are far from it at these sizes.
    assert!(recorder.layers.iter().flat_map(|l| &l.margins).all(|m| *m > 1e-6));
    assert_eq!(recorder.layers.len(), expected[0].router_logits.len());
    for layer in &recorder.layers {
        let point = ProbePoint::RouterLogits(LayerIndex(layer.number as u16));
        let joined = expected.iter().flat_map(|f| f.router_logits[&layer.number].clone()).collect();
        check("router logits", &seen.0[&point], joined);
    }
    let joined = expected.iter().flat_map(|f| f.logits.clone()).collect();
    check("logits", &seen.0[&ProbePoint::Logits], joined);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn other_shapes_of_every_family_match_a_plain_forward_pass(
        family in prop::sample::select(Family::ALL.to_vec()),
        (heads, kv_heads) in prop::sample::select(vec![(1, 1), (4, 1), (4, 2), (4, 4), (8, 2)]),
        head_dim in prop::option::of(prop::sample::select(vec![2, 6, 16])),
        chosen in prop::sample::select(vec![1, 2, 8]),
        [bias, renormalise, tied] in any::<[bool; 3]>(),
        (first, every, shared) in (0usize..3, 1usize..3, prop::option::of(0usize..4)),
        seed in 0u64..1000,
    ) {
        let mut config = tiny_config(family);
        for (field, value) in [
            ("num_attention_heads", json!(heads)), ("num_key_value_heads", json!(kv_heads)),
            ("head_dim", json!(head_dim)), ("num_experts_per_tok", json!(chosen)),
            ("attention_bias", json!(bias)), ("qkv_bias", json!(bias)), ("norm_topk_prob", json!(renormalise)),
            ("tie_word_embeddings", json!(tied)), ("num_hidden_layers", json!(4)), ("n_shared_experts", json!(shared)),
            ("first_k_dense_replace", json!(first)), ("moe_layer_freq", json!(every)),
            ("decoder_sparse_step", json!(every)), ("mlp_only_layers", json!([first])),
        ] {
            config[field] = value;
        }
        compare(&config, seed);
    }
}
