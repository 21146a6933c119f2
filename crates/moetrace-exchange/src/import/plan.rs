//! All sources read once: their texts counted, their files hashed, every row checked.

use std::path::Path;

use moetrace_corpus::{CorpusPlan, DatasetPlan, Sample, SkipCounts, SourceFile};
use moetrace_routing::{SampleId, TokenId};
use moetrace_run::{ContentSettings, ImportFacts, ModelFacts, Plan};
use moetrace_trace::{MAX_SAMPLE_TOKENS, TraceColumns};

use super::text::{Opened, Shape, Text, short};
use super::{ImportLayout, ImportSettings, esft, flame, npy};
use crate::ExchangeError;
use crate::error::{OnPath, open_file};

/// What a manifest says where another tool did not.
const NOT_RECORDED: &str = "not recorded";

/// Finds the files of a source.
pub(super) fn open(settings: &ImportSettings, root: &Path) -> Result<Opened, ExchangeError> {
    let opened = match settings.layout {
        ImportLayout::Esft => esft::open(root, settings)?,
        ImportLayout::Flame => flame::open(root, settings)?,
        ImportLayout::Npy => npy::open(root, settings)?,
    };
    match opened.shape.geometry() {
        Ok(_) => Ok(opened),
        Err(error) => Err(ExchangeError::file(root, error.to_string())),
    }
}

/// The plan of a run that holds what the sources hold.
pub(super) fn plan(settings: &ImportSettings) -> Result<Plan, ExchangeError> {
    let mut common: Option<(Shape, bool, bool)> = None;
    let mut datasets = Vec::new();
    for (name, root) in &settings.sources {
        let opened = open(settings, root)?;
        let facts = (opened.shape.clone(), opened.has_weights, opened.has_tokens);
        let first = common.get_or_insert_with(|| facts.clone());
        if *first != facts {
            let what = "other experts, layers or columns than in the first data set";
            return Err(ExchangeError::file(root, what));
        }
        datasets.push(dataset(name, root, opened)?);
    }
    let Some((shape, has_weights, has_tokens)) = common else {
        return Err(ExchangeError::file(Path::new("."), "no source was named"));
    };
    let geometry =
        shape.geometry().map_err(|error| ExchangeError::file(&settings.sources[0].1, error.to_string()))?;
    let lengths = datasets.iter().flat_map(|d| &d.samples).map(|sample| sample.tokens.len());
    let content = ContentSettings {
        traces: datasets.iter().map(|d| d.samples.len()).sum(),
        max_length: lengths.max().unwrap_or(1),
        min_chars: 0,
        seed: 0,
        shard_tokens: settings.shard_tokens,
        columns: TraceColumns {
            weights: has_weights,
            margins: false,
            gate_entropy: false,
            token_ids: has_tokens,
            ..TraceColumns::default()
        },
        weights: settings.weights,
        hidden_rows: 0,
    };
    let mut plan = Plan::new(content, model(settings), None, geometry, CorpusPlan { datasets });
    let lacks = ["weights"].into_iter().filter(|_| !has_weights).chain(["margin", "gate_entropy"]);
    plan.imported = Some(ImportFacts {
        layout: settings.layout.name().into(),
        not_recorded: lacks.map(str::to_owned).collect(),
    });
    Ok(plan)
}

fn model(settings: &ImportSettings) -> ModelFacts {
    let unknown = || NOT_RECORDED.to_owned();
    ModelFacts {
        name: settings.model.clone(),
        revision: None,
        family: unknown(),
        config_hash: unknown(),
        weights_hash: unknown(),
        total_parameters: None,
        active_parameters: None,
        weight_bytes: None,
        engine: "import".into(),
        precision: unknown(),
        compute_dtype: unknown(),
        quantisation: None,
        router_dtype: unknown(),
        hub: None,
        renormalised: None,
    }
}

fn dataset(name: &str, root: &Path, mut opened: Opened) -> Result<DatasetPlan, ExchangeError> {
    let mut samples = Vec::new();
    while let Some(text) = opened.reader.next()? {
        let path = opened.files.get(text.file as usize).map_or(root, |(_, path)| path);
        if text.len > MAX_SAMPLE_TOKENS {
            let what = format!(
                "a text of {} tokens, expected at most {MAX_SAMPLE_TOKENS}; --text-tokens cuts it into several",
                text.len
            );
            return Err(ExchangeError::row(path, text.row.into(), what));
        }
        let id = u32::try_from(samples.len()).map_err(|_| ExchangeError::file(root, "too many texts"))?;
        samples.push(sample(id, text));
    }
    if samples.is_empty() {
        return Err(ExchangeError::file(root, "it holds no text"));
    }
    let mut files = Vec::new();
    for (path, full) in &opened.files {
        files.push(source_file(path, full)?);
    }
    Ok(DatasetPlan {
        name: name.into(),
        root: root.to_owned(),
        files,
        column: opened_column(&opened).into(),
        label_column: None,
        rows_seen: samples.len() as u64,
        usable: samples.len() as u64,
        quota: samples.len(),
        skipped: SkipCounts::default(),
        examples: Vec::new(),
        notes: Vec::new(),
        samples,
    })
}

fn opened_column(opened: &Opened) -> &'static str {
    if opened.has_tokens { "token_id" } else { NOT_RECORDED }
}

fn sample(id: u32, text: Text) -> Sample {
    let tokens = match text.tokens {
        Some(ids) => ids.into_iter().map(TokenId).collect(),
        None => vec![TokenId::default(); text.len],
    };
    Sample {
        id: SampleId(id),
        file: text.file,
        row: text.row,
        label: None,
        text: None,
        text_hash: text.hash,
        tokens,
        truncated: false,
        begins_with_bos: false,
    }
}

fn source_file(name: &str, path: &Path) -> Result<SourceFile, ExchangeError> {
    let mut hasher = blake3::Hasher::new();
    let mut file = open_file(path)?;
    let bytes = std::io::copy(&mut file, &mut hasher).on("cannot read", path)?;
    Ok(SourceFile {
        path: name.to_owned(),
        bytes,
        blake3: hasher.finalize().to_hex().to_string(),
        read: true,
    })
}

/// The hash of a text that is token ids, as the corpus takes it: the ids behind the nine bytes `input_ids`.
pub(super) fn hash_of_ids(ids: &[u32]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"input_ids");
    for id in ids {
        hasher.update(&id.to_le_bytes());
    }
    short(&hasher)
}
