//! Score files of ESFT (arXiv 2407.01906, `get_expert_scores.py`).
//!
//! A folder holds `expert_weights_LAYER.txt` for each MoE layer: one line for each text; the ids of all its tokens, K a
//! token, separated by tabs; two tabs; as many weights, separated by tabs. The K ids of a token stand in no particular
//! order. `summary.json`, where it is there, names every expert.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use super::ImportSettings;
use super::layer_files::layer_files;
use super::text::{Opened, Shape, Text, TextLayer, TextReader, TokenRules, add_token, short};
use crate::ExchangeError;
use crate::error::{OnPath, open_file};

/// The longest line: 65,535 tokens of 64 experts, 16 characters each.
const MOST_LINE_BYTES: u64 = 64 << 20;

pub(super) fn open(root: &Path, settings: &ImportSettings) -> Result<Opened, ExchangeError> {
    let layers = layer_files(root, "expert_weights_", ".txt")?;
    if layers.is_empty() {
        return Err(ExchangeError::file(root, "it holds no expert_weights_LAYER.txt"));
    }
    let not_said = |what, flag| ExchangeError::NotSaid { path: root.to_owned(), what, flag };
    let chosen = settings.chosen.ok_or_else(|| {
        not_said("the files do not say how many experts a token has", "--experts-per-token")
    })?;
    let experts = match settings.experts {
        Some(experts) => experts,
        None => experts_of_summary(&root.join("summary.json"))?.ok_or_else(|| {
            not_said("without summary.json nothing says how many experts there are", "--experts")
        })?,
    };
    let mut readers = Vec::new();
    for (_, path) in &layers {
        readers.push(LayerReader { path: path.clone(), lines: BufReader::new(open_file(path)?), line: 0 });
    }
    let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Opened {
        files: layers.iter().map(|(_, path)| (name(path), path.clone())).collect(),
        shape: Shape { experts, chosen, layers: layers.iter().map(|(layer, _)| *layer).collect() },
        has_weights: true,
        has_tokens: false,
        reader: Box::new(EsftReader {
            readers,
            rules: TokenRules { experts, precision: settings.weights },
            chosen,
        }),
    })
}

/// One more than the highest expert that the summary names; `None` without a summary.
fn experts_of_summary(path: &Path) -> Result<Option<usize>, ExchangeError> {
    if !path.exists() {
        return Ok(None);
    }
    let summary: serde_json::Value = serde_json::from_reader(BufReader::new(open_file(path)?))
        .map_err(|error| ExchangeError::file(path, error.to_string()))?;
    let layers = summary["token_scores"].as_object().into_iter().flat_map(|layers| layers.values());
    let experts = layers.filter_map(|layer| layer.as_object()).flat_map(|layer| layer.keys());
    let highest = experts.filter_map(|expert| expert.parse::<u16>().ok()).max();
    match highest {
        Some(highest) => Ok(Some(usize::from(highest) + 1)),
        None => Err(ExchangeError::file(path, "token_scores names no expert")),
    }
}

struct EsftReader {
    readers: Vec<LayerReader>,
    rules: TokenRules,
    chosen: usize,
}

struct LayerReader {
    path: PathBuf,
    lines: BufReader<File>,
    /// Lines read.
    line: u64,
}

impl LayerReader {
    fn wrong(&self, what: impl Into<String>) -> ExchangeError {
        ExchangeError::Line { path: self.path.clone(), line: self.line, what: what.into() }
    }

    /// The next line that is not empty.
    fn next(&mut self) -> Result<Option<String>, ExchangeError> {
        loop {
            let mut bytes = Vec::new();
            let mut limited = (&mut self.lines).take(MOST_LINE_BYTES);
            let read = limited.read_until(b'\n', &mut bytes).on("cannot read", &self.path)?;
            if read == 0 {
                return Ok(None);
            }
            self.line += 1;
            if read as u64 == MOST_LINE_BYTES {
                return Err(self.wrong(format!("longer than {MOST_LINE_BYTES} bytes")));
            }
            let line = String::from_utf8(bytes).map_err(|_| self.wrong("no UTF-8"))?;
            let line = line.trim_end_matches(['\n', '\r']);
            if !line.is_empty() {
                return Ok(Some(line.to_owned()));
            }
        }
    }

    /// One text's choices out of its line.
    fn parse(&self, line: &str, rules: TokenRules, chosen: usize) -> Result<TextLayer, ExchangeError> {
        let (ids, weights) =
            line.split_once("\t\t").ok_or_else(|| self.wrong("no two tabs between ids and weights"))?;
        let number = |text: &str| self.wrong(format!("{text:?} is no number"));
        let ids: Vec<i64> =
            ids.split('\t').map(|text| text.parse().map_err(|_| number(text))).collect::<Result<_, _>>()?;
        let weights: Vec<f32> = weights
            .split('\t')
            .map(|text| text.parse().map_err(|_| number(text)))
            .collect::<Result<_, _>>()?;
        if ids.len() != weights.len() {
            return Err(self.wrong(format!("{} ids and {} weights", ids.len(), weights.len())));
        }
        if !ids.len().is_multiple_of(chosen) {
            return Err(self.wrong(format!("{} ids, expected a multiple of {chosen}", ids.len())));
        }
        let mut layer = TextLayer::default();
        for (token, (ids, weights)) in ids.chunks_exact(chosen).zip(weights.chunks_exact(chosen)).enumerate()
        {
            add_token(&mut layer, ids, Some(weights), rules)
                .map_err(|fault| self.wrong(format!("token {token}: {}", fault.what)))?;
        }
        Ok(layer)
    }
}

impl TextReader for EsftReader {
    fn next(&mut self) -> Result<Option<Text>, ExchangeError> {
        let mut text: Option<Text> = None;
        let mut hasher = blake3::Hasher::new();
        let mut ended = false;
        for (index, reader) in self.readers.iter_mut().enumerate() {
            let line = reader.next()?;
            let is_over = line.is_none();
            if index > 0 && is_over != ended {
                return Err(ExchangeError::file(&reader.path, "other texts than in the first layer"));
            }
            ended = is_over;
            let Some(line) = line else { continue };
            hasher.update(line.as_bytes());
            let layer = reader.parse(&line, self.rules, self.chosen)?;
            let len = layer.experts.len() / self.chosen;
            let row = u32::try_from(reader.line - 1).map_err(|_| reader.wrong("too many lines"))?;
            let text = text.get_or_insert_with(|| Text {
                file: 0,
                row,
                len,
                tokens: None,
                layers: Vec::new(),
                hash: [0; 16],
            });
            if text.len != len {
                let what = format!("{len} tokens, {} in the first layer", text.len);
                return Err(reader.wrong(what));
            }
            text.layers.push(layer);
        }
        Ok(text.map(|text| Text { hash: short(&hasher), ..text }))
    }
}
