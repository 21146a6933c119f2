//! What a run is: written once, before its first shard, and never changed.

use std::collections::BTreeMap;
use std::fmt;

use moetrace_corpus::DatasetPlan;
use moetrace_routing::{LayerIndex, RoutingGeometry};
use serde::{Deserialize, Serialize};

use crate::{HubFacts, Plan, RunError, Shard};

/// The manifest's own version; a reader refuses a higher one.
pub(crate) const MANIFEST_VERSION: u32 = 1;

/// Facts about the model and about how it is computed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelFacts {
    /// What the user called it: a Hub id or a folder's name.
    pub name: String,
    /// Resolved commit of a Hub id.
    pub revision: Option<String>,
    /// `model_type` of its config.
    pub family: String,
    /// blake3 of config.json.
    pub config_hash: String,
    /// blake3 over the hashes of its weight files.
    pub weights_hash: String,
    /// All parameters; absent where nobody said.
    pub total_parameters: Option<u64>,
    /// Parameters that one token meets; absent where nobody said.
    pub active_parameters: Option<u64>,
    /// Bytes of all weights as the run holds them; absent where nobody said, and in older runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_bytes: Option<u64>,
    /// `cpu` or `cuda`: their roundings differ.
    pub engine: String,
    /// How the weights are held.
    pub precision: String,
    /// The type of activations.
    pub compute_dtype: String,
    /// How weights were quantised; `None` where they are dense.
    pub quantisation: Option<String>,
    /// `model` (as the reference implementation rounds) or `f32`.
    pub router_dtype: String,
    /// Whether the K weights of a token are divided by their sum; absent where nobody said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renormalised: Option<bool>,
    /// Where it is on a hub, if it came from one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub: Option<HubFacts>,
}

/// Facts about the tokenizer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenizerFacts {
    /// blake3 of `tokenizer.json` and `tokenizer_config.json`.
    pub hash: String,
    /// The token put before every text, if any.
    pub bos_token_id: Option<u32>,
}

/// One source file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFacts {
    /// Path below the data set's root.
    pub path: String,
    /// Size.
    pub bytes: u64,
    /// Hash of its bytes.
    pub blake3: String,
    /// Whether it was among the files read (beyond 2 GB only some are).
    pub read: bool,
}

/// Facts about one data set and what became of its rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetFacts {
    /// Name in every file of the run.
    pub name: String,
    /// The column texts come from.
    pub column: String,
    /// The column labels come from.
    pub label_column: Option<String>,
    /// Files in name order.
    pub files: Vec<FileFacts>,
    /// Rows read.
    pub rows_seen: u64,
    /// Rows left after the filters.
    pub usable: u64,
    /// Samples asked for.
    pub quota: u64,
    /// Samples planned.
    pub samples: u64,
    /// Tokens planned.
    pub tokens: u64,
    /// Samples cut at the length limit.
    pub truncated: u64,
    /// Rows left out, by reason.
    pub skipped: BTreeMap<String, u64>,
    /// Where it is on a hub, if it came from one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub: Option<HubFacts>,
}

impl DatasetFacts {
    /// The facts of a planned data set.
    pub(crate) fn new(plan: &DatasetPlan, hub: Option<&HubFacts>) -> Self {
        let files = plan.files.iter().map(|f| FileFacts {
            path: f.path.clone(),
            bytes: f.bytes,
            blake3: f.blake3.clone(),
            read: f.read,
        });
        Self {
            name: plan.name.to_string(),
            column: plan.column.clone(),
            label_column: plan.label_column.clone(),
            files: files.collect(),
            rows_seen: plan.rows_seen,
            usable: plan.usable,
            quota: plan.quota as u64,
            samples: plan.samples.len() as u64,
            tokens: plan.samples.iter().map(|s| s.tokens.len() as u64).sum(),
            truncated: plan.samples.iter().filter(|s| s.truncated).count() as u64,
            skipped: plan.skipped.iter().map(|(reason, n)| (reason.to_string(), n)).collect(),
            hub: hub.cloned(),
        }
    }
}

/// A setting as it was resolved, and by whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedSetting {
    /// The flag's name without dashes.
    pub name: String,
    /// Its value.
    pub value: String,
    /// `flag`, `file FILE`, `environment`, `default` and so on.
    pub source: String,
}

/// Where a run comes from that no model of ours has made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportFacts {
    /// The layout that was read: `esft`, `flame` or `npy`.
    pub layout: String,
    /// Which of `weights`, `margin` and `gate_entropy` the other tool did not record; their columns are absent.
    pub not_recorded: Vec<String>,
}

/// The shape of the routing, as JSON has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GeometryFacts {
    /// Experts per layer.
    pub experts: usize,
    /// Experts chosen per token.
    pub chosen: usize,
    /// Width of the router's input.
    pub hidden: usize,
    /// Absolute numbers of the routed layers.
    pub layers: Vec<u16>,
}

/// `manifest.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this file's form.
    pub version: u32,
    /// The moetrace that began the run.
    pub moetrace: String,
    /// Hash of `identity`.
    pub plan_hash: String,
    /// The model.
    pub model: ModelFacts,
    /// Its tokenizer.
    pub tokenizer: Option<TokenizerFacts>,
    /// The shape of its routing.
    pub geometry: GeometryFacts,
    /// What it was imported from, if another tool recorded it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imported: Option<ImportFacts>,
    /// The sources.
    pub datasets: Vec<DatasetFacts>,
    /// Everything that decides the files, by name.
    pub identity: BTreeMap<String, String>,
    /// Every setting and where it came from, as the run was begun.
    pub settings: Vec<ResolvedSetting>,
    /// The units of work.
    pub shards: Vec<Shard>,
}

/// One thing that two plans, or two runs, do not share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What differs.
    pub name: String,
    /// In the folder, or in the first run.
    pub was: String,
    /// As asked for now, or in the second run.
    pub now: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} -> {}", self.name, shown(&self.was), shown(&self.now))
    }
}

/// The hash of an identity, 64 hex digits.
pub(crate) fn identity_hash(identity: &BTreeMap<String, String>) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in identity.iter().flat_map(|(key, value)| [key, value]) {
        // Lengths first, so that no two identities share their bytes.
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// What two identities do not share, by name.
pub(crate) fn identity_differences(
    was: &BTreeMap<String, String>,
    now: &BTreeMap<String, String>,
) -> Vec<Difference> {
    let names: std::collections::BTreeSet<&String> = was.keys().chain(now.keys()).collect();
    let side = |map: &BTreeMap<String, String>, name: &String| {
        map.get(name).cloned().unwrap_or_else(|| "absent".into())
    };
    names
        .into_iter()
        .filter(|name| was.get(*name) != now.get(*name))
        .map(|name| Difference { name: name.clone(), was: side(was, name), now: side(now, name) })
        .collect()
}

/// A hash of 64 digits as its first 12, which tell it from others as well.
fn shown(value: &str) -> String {
    let is_hash = |word: &str| word.len() == 64 && word.bytes().all(|b| b.is_ascii_hexdigit());
    let short = |word: &str| if is_hash(word) { format!("{}…", &word[..12]) } else { word.to_owned() };
    value.split(' ').map(short).collect::<Vec<_>>().join(" ")
}

impl Manifest {
    /// The manifest of a plan about to begin.
    pub fn new(plan: &Plan, settings: Vec<ResolvedSetting>) -> Self {
        let g = &plan.geometry;
        Self {
            version: MANIFEST_VERSION,
            moetrace: env!("CARGO_PKG_VERSION").into(),
            plan_hash: plan.hash(),
            model: plan.model.clone(),
            tokenizer: plan.tokenizer.clone(),
            geometry: GeometryFacts {
                experts: g.experts(),
                chosen: g.chosen(),
                hidden: g.hidden(),
                layers: g.layers().iter().map(|l| l.0).collect(),
            },
            imported: plan.imported.clone(),
            datasets: plan.dataset_facts(),
            identity: plan.identity(),
            settings,
            shards: plan.shards.clone(),
        }
    }

    /// What a plan would change; empty when it continues this run.
    pub fn differences(&self, plan: &Plan) -> Vec<Difference> {
        identity_differences(&self.identity, &plan.identity())
    }
}

impl Manifest {
    /// Whether the run keeps router inputs.
    pub fn has_hidden(&self) -> bool {
        self.identity.get("hidden").is_some_and(|rows| rows != "0")
    }

    /// The seed that chose the texts, which random draws of metrics start from too; 0 for runs that were imported.
    pub fn seed(&self) -> u64 {
        self.identity.get("seed").and_then(|seed| seed.parse().ok()).unwrap_or(0)
    }

    /// Rows of a shard's hidden file: each layer of as many tokens as were asked for, or of all that there are.
    pub(crate) fn hidden_rows(&self, shard: &Shard) -> u64 {
        let asked = self.identity.get("hidden").and_then(|rows| rows.parse().ok()).unwrap_or(0);
        shard.tokens.min(asked).saturating_mul(self.geometry.layers.len() as u64)
    }

    /// What about the manifest contradicts itself, if anything: it is a file, which anybody can change.
    pub(crate) fn objection(&self) -> Option<String> {
        // Names become paths: one from a foreign manifest must not leave the folder.
        let is_path = |name: &str| name.contains(['/', '\\', '\0']) || name.starts_with('.');
        if let Some(shard) = self.shards.iter().find(|s| is_path(&s.name)) {
            return Some(format!("shard name {:?} is no file name", shard.name));
        }
        if identity_hash(&self.identity) != self.plan_hash {
            return Some("its plan_hash is not the hash of its identity".into());
        }
        let mut datasets = std::collections::BTreeSet::new();
        if let Some(dataset) = self.datasets.iter().find(|d| !datasets.insert(&d.name)) {
            return Some(format!("data set {} is listed twice", dataset.name));
        }
        let mut names = std::collections::BTreeSet::new();
        if let Some(shard) = self.shards.iter().find(|s| !names.insert(&s.name)) {
            return Some(format!("shard {} is listed twice", shard.name));
        }
        let mut held = vec![(0u64, 0u64); self.datasets.len()];
        for shard in &self.shards {
            let Some((samples, tokens)) = held.get_mut(shard.dataset) else {
                return Some(format!(
                    "shard {} is of data set {}, which is not there",
                    shard.name, shard.dataset
                ));
            };
            if shard.first as u64 != *samples {
                return Some(format!(
                    "shard {} begins with sample {}, expected {samples}",
                    shard.name, shard.first
                ));
            }
            *samples = samples.saturating_add(shard.samples as u64);
            *tokens = tokens.saturating_add(shard.tokens);
        }
        let differs = self.datasets.iter().zip(held).find(|(d, held)| (d.samples, d.tokens) != *held);
        differs.map(|(d, (samples, tokens))| {
            format!(
                "the shards of {} hold {samples} samples and {tokens} tokens, expected {} and {}",
                d.name, d.samples, d.tokens
            )
        })
    }

    /// The shape of the routing, checked.
    ///
    /// # Errors
    /// [`RunError::Damaged`] if no model has such a shape.
    pub fn geometry(&self) -> Result<RoutingGeometry, RunError> {
        let g = &self.geometry;
        let layers = g.layers.iter().map(|&l| LayerIndex(l)).collect();
        RoutingGeometry::new(g.experts, g.chosen, g.hidden, layers)
            .map_err(|e| RunError::Damaged { path: "manifest.json".into(), what: e.to_string() })
    }
}
