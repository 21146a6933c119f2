//! Everything that decides the bytes of a run, and its hash.

use std::collections::BTreeMap;
use std::ops::Range;

use moetrace_corpus::CorpusPlan;
use moetrace_routing::{RoutingGeometry, WeightPrecision};
use moetrace_trace::TraceColumns;

use crate::manifest::{
    DatasetFacts, ImportFacts, ModelFacts, TokenizerFacts, identity_differences, identity_hash,
};
use crate::{HubFacts, RunError, RunFolder, Shard, ShardRange, shard};

/// Settings that decide what a run's files hold. Two runs with equal content settings, model, tokenizer and
/// sources have equal files.
#[derive(Debug, Clone, PartialEq)]
pub struct ContentSettings {
    /// Texts asked for over all data sets.
    pub traces: usize,
    /// Most tokens of one text, BOS included.
    pub max_length: usize,
    /// A text has more characters than this after trimming.
    pub min_chars: usize,
    /// Decides which texts are taken and in which order.
    pub seed: u64,
    /// Most tokens in a shard.
    pub shard_tokens: usize,
    /// Which columns are written.
    pub columns: TraceColumns,
    /// How weights are rounded.
    pub weights: WeightPrecision,
    /// Rows per shard whose router input is kept, 0 for none.
    pub hidden_rows: usize,
}

/// A run before anything is written.
#[derive(Debug)]
pub struct Plan {
    /// What decides the files.
    pub content: ContentSettings,
    /// The model and how it computes.
    pub model: ModelFacts,
    /// The tokenizer, unless all sources bring token ids.
    pub tokenizer: Option<TokenizerFacts>,
    /// The shape of the routing.
    pub geometry: RoutingGeometry,
    /// The samples.
    pub corpus: CorpusPlan,
    /// Where each data set is on a hub, by its name; no part of the identity.
    pub origins: BTreeMap<String, HubFacts>,
    /// The units of work.
    pub shards: Vec<Shard>,
    /// Where the routing comes from, if no model of ours makes it.
    pub imported: Option<ImportFacts>,
}

impl ContentSettings {
    /// The part of [`Plan::identity`] that is known before model and texts are.
    fn identity(&self) -> [(&'static str, String); 12] {
        let columns = &self.columns;
        [
            ("trace_schema", moetrace_trace::SCHEMA_VERSION.to_string()),
            ("traces", self.traces.to_string()),
            ("max_length", self.max_length.to_string()),
            ("min_chars", self.min_chars.to_string()),
            ("seed", self.seed.to_string()),
            ("shard_tokens", self.shard_tokens.to_string()),
            ("weights", format!("{:?}", self.weights).to_lowercase()),
            ("hidden", self.hidden_rows.to_string()),
            ("no_tokens", (!columns.token_ids).to_string()),
            ("text", columns.text.to_string()),
            ("router_logits", columns.logits.to_string()),
            ("nll", columns.nll.to_string()),
        ]
    }

    /// Refuses a run that was begun with other ones. What else may differ is known once model and texts are here.
    ///
    /// # Errors
    /// [`RunError::OtherSettings`]; [`RunError::Damaged`] for a manifest that cannot be read.
    pub fn check_begun(&self, folder: &RunFolder) -> Result<(), RunError> {
        if !folder.has_manifest() {
            return Ok(());
        }
        let manifest = folder.manifest()?;
        let now: BTreeMap<String, String> =
            self.identity().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let mut was = manifest.identity;
        was.retain(|name, _| now.contains_key(name));
        let differences = identity_differences(&was, &now);
        if differences.is_empty() {
            return Ok(());
        }
        Err(RunError::OtherSettings { path: folder.root().to_owned(), differences })
    }
}

impl Plan {
    /// Cuts the samples into shards.
    pub fn new(
        content: ContentSettings,
        model: ModelFacts,
        tokenizer: Option<TokenizerFacts>,
        geometry: RoutingGeometry,
        corpus: CorpusPlan,
    ) -> Self {
        let shards = shard::cut(&corpus, content.shard_tokens);
        let origins = BTreeMap::new();
        Self { content, model, tokenizer, geometry, corpus, origins, shards, imported: None }
    }

    /// Everything that decides the files, by name: what the plan hash covers, and what a refusal compares.
    pub fn identity(&self) -> BTreeMap<String, String> {
        let of_model = [
            ("engine", self.model.engine.clone()),
            ("precision", self.model.precision.clone()),
            ("compute_dtype", self.model.compute_dtype.clone()),
            ("quantisation", self.model.quantisation.clone().unwrap_or_else(|| "none".into())),
            ("router_dtype", self.model.router_dtype.clone()),
            ("model_config", self.model.config_hash.clone()),
            ("model_weights", self.model.weights_hash.clone()),
            ("tokenizer", self.tokenizer.as_ref().map_or_else(|| "none".into(), |t| t.hash.clone())),
        ];
        let of_content = self.content.identity();
        let mut identity: BTreeMap<String, String> =
            of_content.into_iter().chain(of_model).map(|(key, value)| (key.to_owned(), value)).collect();
        // The number counts: the first data sets get what the quota leaves over.
        for (i, dataset) in self.dataset_facts().into_iter().enumerate() {
            let files = blake3::hash(serde_json::to_string(&dataset.files).unwrap_or_default().as_bytes());
            identity.insert(
                format!("dataset {}", dataset.name),
                format!("no. {} column {} files {}", i + 1, dataset.column, files.to_hex()),
            );
        }
        if let Some(facts) = &self.imported {
            identity
                .insert("imported".to_owned(), format!("{} without {:?}", facts.layout, facts.not_recorded));
        }
        identity
    }

    /// The hash of [`identity`](Self::identity), 64 hex digits.
    pub fn hash(&self) -> String {
        identity_hash(&self.identity())
    }

    /// What the manifest says of each data set.
    pub fn dataset_facts(&self) -> Vec<DatasetFacts> {
        let origin = |name: &str| self.origins.get(name);
        self.corpus.datasets.iter().map(|d| DatasetFacts::new(d, origin(d.name.as_ref()))).collect()
    }

    /// The shards of a range; all without one.
    ///
    /// # Errors
    /// [`RunError::ShardRange`] if the run has not that many.
    pub fn select(&self, range: Option<ShardRange>) -> Result<Range<usize>, RunError> {
        let shards = self.shards.len();
        match range {
            None => Ok(0..shards),
            Some(ShardRange { from, to }) if from <= to && to <= shards => Ok(from..to),
            Some(ShardRange { from, to }) => Err(RunError::ShardRange { from, to, shards }),
        }
    }

    /// Tokens over all shards.
    pub fn tokens(&self) -> u64 {
        self.shards.iter().map(|s| s.tokens).sum()
    }

    /// Samples over all shards.
    pub fn samples(&self) -> usize {
        self.shards.iter().map(|s| s.samples).sum()
    }
}
