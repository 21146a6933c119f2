//! Small tokenizers and data sets, written into temporary folders.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use moetrace_corpus::{
    CorpusError, CorpusPlan, CorpusSettings, DatasetPlan, SourceSpec, TextTokenizer, plan,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Ids of the special tokens below; the 256 bytes come before them.
pub(crate) const BOS: u32 = 256;
pub(crate) const EOS: u32 = 257;

/// The character that stands for a byte in byte-level vocabularies: itself where it is printable, else one from
/// 256 upward in order.
fn byte_character(byte: u8) -> char {
    let printable = |b: u8| (33..=126).contains(&b) || (161..=172).contains(&b) || b >= 174;
    if printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|&b| !printable(b)).count() as u32;
    char::from_u32(256 + before).unwrap()
}

/// A tokenizer with one token for each byte (the byte's value is its id), `<s>` and `</s>`.
pub(crate) fn byte_tokenizer() -> Value {
    let mut vocabulary = serde_json::Map::new();
    for byte in 0..=255u8 {
        vocabulary.insert(byte_character(byte).to_string(), json!(byte));
    }
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    vocabulary.insert("<s>".into(), json!(BOS));
    vocabulary.insert("</s>".into(), json!(EOS));
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special(BOS, "<s>"), special(EOS, "</s>")],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocabulary,
                  "merges": []}
    })
}

/// A post-processor that puts `<s>` before and `</s>` behind every text.
pub(crate) fn template_with_both() -> Value {
    let special = |id: &str| json!({"SpecialToken": {"id": id, "type_id": 0}});
    let sequence = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
    json!({
        "type": "TemplateProcessing",
        "single": [special("<s>"), sequence("A"), special("</s>")],
        "pair": [special("<s>"), sequence("A"), sequence("B")],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [BOS], "tokens": ["<s>"]},
                           "</s>": {"id": "</s>", "ids": [EOS], "tokens": ["</s>"]}}
    })
}

pub(crate) fn open_tokenizer(
    tokenizer: &Value,
    config: Option<&Value>,
) -> Result<TextTokenizer, CorpusError> {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    if let Some(config) = config {
        fs::write(folder.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    }
    TextTokenizer::open(folder.path())
}

/// One token a byte, `<s>` before each text.
pub(crate) fn tokenizer() -> TextTokenizer {
    let config = json!({"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": true, "bos_token": "<s>",
                        "eos_token": "</s>"});
    open_tokenizer(&byte_tokenizer(), Some(&config)).unwrap()
}

/// Token ids of a text as `tokenizer` makes them.
pub(crate) fn ids(text: &str) -> Vec<u32> {
    std::iter::once(BOS).chain(text.bytes().map(u32::from)).collect()
}

/// Short texts pass, so that tests need no long ones.
pub(crate) fn settings() -> CorpusSettings {
    CorpusSettings { min_chars: 3, traces: 100, keep_text: true, ..CorpusSettings::default() }
}

pub(crate) fn write(folder: &TempDir, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, bytes).unwrap();
    path
}

pub(crate) fn source(name: &str, path: &Path, column: Option<&str>) -> SourceSpec {
    SourceSpec { name: name.into(), path: path.into(), column: column.map(Into::into), listed: vec![] }
}

pub(crate) fn plan_all(sources: &[SourceSpec], settings: &CorpusSettings) -> Result<CorpusPlan, CorpusError> {
    static TOKENIZER: LazyLock<TextTokenizer> = LazyLock::new(tokenizer);
    plan(sources, Some(&TOKENIZER), settings, &mut |_| {})
}

pub(crate) fn plan_one(
    path: &Path,
    column: Option<&str>,
    settings: &CorpusSettings,
) -> Result<DatasetPlan, CorpusError> {
    Ok(plan_all(&[source("data", path, column)], settings)?.datasets.remove(0))
}

/// The texts of a plan in the order of their rows.
pub(crate) fn texts(dataset: &DatasetPlan) -> Vec<String> {
    let mut samples: Vec<_> = dataset.samples.iter().collect();
    samples.sort_by_key(|sample| sample.id);
    samples.into_iter().map(|sample| sample.text.clone().unwrap()).collect()
}

/// The labels of a plan in the order of their rows.
pub(crate) fn labels(dataset: &DatasetPlan) -> Vec<Option<String>> {
    let mut samples: Vec<_> = dataset.samples.iter().collect();
    samples.sort_by_key(|sample| sample.id);
    samples.into_iter().map(|sample| sample.label.as_deref().map(str::to_owned)).collect()
}

/// `{"text": ...}` lines.
pub(crate) fn json_lines<S: AsRef<str>>(texts: impl IntoIterator<Item = S>) -> String {
    let lines: Vec<String> =
        texts.into_iter().map(|text| json!({"text": text.as_ref()}).to_string()).collect();
    lines.join("\n") + "\n"
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}
