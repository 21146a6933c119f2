//! `--device-map`: where layers are to live, as transformers writes it.

use std::path::Path;

use moetrace_model::{ModelConfig, Offload, Place};
use serde_json::{Map, Value};

use super::limit::is_number;

/// Places by layer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct DeviceMap {
    /// Whether layers that are not named may leave the GPU.
    pub(crate) offload: Offload,
    /// Of each layer that is named.
    pub(crate) layers: Vec<Option<Place>>,
    /// Of the token embedding, if it is named.
    pub(crate) embedding: Option<Place>,
    /// The GPU that is named by its number.
    pub(crate) gpu: Option<usize>,
}

/// Parts of a layer as checkpoints name them.
const PARTS: [&str; 5] =
    ["self_attn", "mlp", "block_sparse_moe", "input_layernorm", "post_attention_layernorm"];

/// Parts beside the layers that hold no weights of their own or always stay on the GPU.
const APART: [&str; 3] = ["model.norm", "model.rotary_emb", "lm_head"];

impl DeviceMap {
    /// Reads `auto`, `cpu`, `cuda`, a JSON object, or the name of a file with one.
    pub(crate) fn read(text: &str, config: &ModelConfig) -> Result<Self, String> {
        match text {
            "auto" => return Ok(Self::default()),
            "cpu" => return Ok(Self { offload: Offload::Always, ..Self::default() }),
            "cuda" => return Ok(Self { offload: Offload::Never, ..Self::default() }),
            _ => {}
        }
        let inline = text.trim_start().starts_with('{');
        let json = if inline { text.to_owned() } else { read_file(Path::new(text))? };
        let object: Map<String, Value> = serde_json::from_str(&json)
            .map_err(|error| format!("expected a JSON object of modules and places: {error}"))?;
        Self::of(&object, config)
    }

    fn of(object: &Map<String, Value>, config: &ModelConfig) -> Result<Self, String> {
        let layers = config.layers();
        let mut map = Self { layers: vec![None; layers], ..Self::default() };
        // What holds for all layers first, the wider name before the narrower.
        for all in ["", "model", "model.layers"] {
            if let Some(value) = object.get(all) {
                let place = map.place(all, value)?;
                map.layers.fill(Some(place));
                if all != "model.layers" {
                    map.embedding = Some(place);
                }
            }
        }
        let mut named: Vec<Option<Place>> = vec![None; layers];
        for (key, value) in object {
            let place = map.place(key, value)?;
            if key == "model.embed_tokens" {
                if place == Place::Disk {
                    return Err(format!("{key} cannot be read from disk: expected a GPU or cpu"));
                }
                map.embedding = Some(place);
            } else if let Some(rest) = key.strip_prefix("model.layers.") {
                let layer = layer_of(key, rest, layers)?;
                named[layer] = Some(named[layer].map_or(place, |other| slower(other, place)));
            } else if !matches!(key.as_str(), "" | "model" | "model.layers") && !is_apart(key) {
                return Err(format!(
                    "{key:?} is no part of the model: expected model.layers.N, model.embed_tokens, model.norm or lm_head"
                ));
            }
        }
        for (place, named) in map.layers.iter_mut().zip(named) {
            *place = named.or(*place);
        }
        // An embedding that all of the model goes to disk with is fetched from the host.
        map.embedding = map.embedding.map(|place| if place == Place::Disk { Place::Host } else { place });
        Ok(map)
    }

    /// `cuda:0`, `0`, `"cpu"`, `"disk"`.
    fn place(&mut self, key: &str, value: &Value) -> Result<Place, String> {
        let refused = || format!("{key:?} is to go to {value}: expected \"cuda:0\", \"cpu\" or \"disk\"");
        let number = match value {
            Value::Number(number) => number.to_string(),
            Value::String(text) => match text.as_str() {
                "cpu" => return Ok(Place::Host),
                "disk" => return Ok(Place::Disk),
                "cuda" | "gpu" => return Ok(Place::Device),
                other => other.strip_prefix("cuda:").unwrap_or(other).to_owned(),
            },
            _ => return Err(refused()),
        };
        let gpu = Some(number).filter(|number| is_number(number)).and_then(|number| number.parse().ok());
        let gpu: usize = gpu.ok_or_else(refused)?;
        match self.gpu.replace(gpu) {
            Some(other) if other != gpu => {
                Err(format!("{key:?} is to go to GPU {gpu}, others to GPU {other}: a run uses one GPU"))
            }
            _ => Ok(Place::Device),
        }
    }
}

fn is_apart(key: &str) -> bool {
    APART
        .iter()
        .any(|part| key.strip_prefix(part).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
}

/// The layer that `rest` of a key names, by itself or with a part of it.
fn layer_of(key: &str, rest: &str, layers: usize) -> Result<usize, String> {
    let (number, part) = rest.split_once('.').map_or((rest, None), |(number, part)| (number, Some(part)));
    let layer = Some(number).filter(|n| is_number(n)).and_then(|n| n.parse::<usize>().ok());
    let layer = layer.filter(|layer| *layer < layers);
    let layer =
        layer.ok_or_else(|| format!("{key:?}: the model has layers 0 to {}", layers.saturating_sub(1)))?;
    if let Some(part) = part {
        let first = part.split('.').next().unwrap_or_default();
        if !PARTS.contains(&first) {
            return Err(format!("{key:?} is no part of a layer: expected one of {}", PARTS.join(", ")));
        }
    }
    Ok(layer)
}

fn slower(a: Place, b: Place) -> Place {
    let rank = |place| match place {
        Place::Device => 0,
        Place::Host => 1,
        Place::Disk => 2,
    };
    if rank(b) > rank(a) { b } else { a }
}

/// A map is a few kilobytes; more is not a map.
const MAP_BYTES: u64 = 4 << 20;

fn read_file(path: &Path) -> Result<String, String> {
    use std::io::Read as _;
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MAP_BYTES).read_to_string(&mut text));
    let expected = "expected auto, cpu, cuda, a JSON object or a file with one";
    read.map(|_| text).map_err(|error| format!("cannot read {}: {error}: {expected}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ModelConfig {
        let config = serde_json::json!({
            "model_type": "mixtral", "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
            "num_key_value_heads": 4, "intermediate_size": 32, "num_local_experts": 4, "num_experts_per_tok": 2,
            "vocab_size": 100, "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 10000.0
        });
        ModelConfig::parse(config.to_string().as_bytes(), "config.json").unwrap()
    }

    fn read(text: &str) -> Result<DeviceMap, String> {
        DeviceMap::read(text, &config())
    }

    #[test]
    fn words_stand_for_the_whole_model() {
        let of = |text| read(text).unwrap().offload;
        assert_eq!([of("auto"), of("cpu"), of("cuda")], [Offload::Auto, Offload::Always, Offload::Never]);
        let whole = read(r#"{"": "cpu"}"#).unwrap();
        assert_eq!((whole.layers, whole.embedding), (vec![Some(Place::Host); 3], Some(Place::Host)));
    }

    #[test]
    fn a_layer_goes_to_the_slowest_place_that_a_part_of_it_names() {
        let map = read(
            r#"{"model.embed_tokens": 0, "model.layers.0": "cuda:0", "model.layers.1.self_attn": 0,
                "model.layers.1.mlp.experts": "disk", "model.layers.1.mlp.gate": "cpu", "model.norm": "cpu", "lm_head": "cpu"}"#,
        )
        .unwrap();
        assert_eq!(map.layers, [Some(Place::Device), Some(Place::Disk), None]);
        assert_eq!((map.embedding, map.gpu, map.offload), (Some(Place::Device), Some(0), Offload::Auto));
    }

    #[test]
    fn a_layer_by_its_number_goes_before_all_layers() {
        let map = read(r#"{"model.layers.1": "cpu", "model.layers": "disk", "model": "cuda"}"#).unwrap();
        assert_eq!(map.layers, [Some(Place::Disk), Some(Place::Host), Some(Place::Disk)]);
        assert_eq!(map.embedding, Some(Place::Device));
    }

    #[test]
    fn a_file_is_read_and_one_that_is_not_there_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("map.json");
        std::fs::write(&path, r#"{"model.layers.2": "disk"}"#).unwrap();
        assert_eq!(read(path.to_str().unwrap()).unwrap().layers[2], Some(Place::Disk));
        let missing = read("balanced").unwrap_err();
        assert!(missing.contains("cannot read balanced") && missing.contains("expected auto"), "{missing}");
    }

    #[test]
    fn what_names_nothing_of_the_model_is_refused_by_name() {
        for (text, named) in [
            (r#"{"model.layers.3": 0}"#, "layers 0 to 2"),
            (r#"{"model.layers.x": 0}"#, "model.layers.x"),
            (r#"{"model.layers.0.moe": 0}"#, "model.layers.0.moe"),
            (r#"{"transformer.h.0": 0}"#, "transformer.h.0"),
            (r#"{"lm_headless": 0}"#, "lm_headless"),
            (r#"{"model.layers.0": "mps"}"#, "mps"),
            (r#"{"model.layers.0": -1}"#, "-1"),
            (r#"{"model.layers.0": null}"#, "null"),
            (r#"{"model.layers.0": 0, "model.layers.1": 1}"#, "one GPU"),
            (r#"{"model.embed_tokens": "disk"}"#, "model.embed_tokens"),
            ("{", "JSON object"),
            ("", "cannot read"),
        ] {
            let refused = read(text).unwrap_err();
            assert!(refused.contains(named), "{text}: {refused}");
        }
    }
}
