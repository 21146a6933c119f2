//! One JSON object for each text.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::PathBuf;

use serde_json::{Value, json};

use super::{Text, Writer, dataset_file};
use crate::ExchangeError;
use crate::error::OnPath;

/// Lines of one data set after the other, a file each.
pub(super) struct Lines {
    root: PathBuf,
    open: Option<(String, PathBuf, BufWriter<File>)>,
}

impl Lines {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root, open: None }
    }

    pub(super) fn write(&mut self, dataset: &str, line: &Value) -> Result<(), ExchangeError> {
        if self.open.as_ref().is_none_or(|(open, ..)| open != dataset) {
            self.close()?;
            let path = dataset_file(&self.root, dataset, "jsonl");
            let file = File::create_new(&path).on("cannot create", &path)?;
            self.open = Some((dataset.to_owned(), path, BufWriter::new(file)));
        }
        let Some((_, path, out)) = &mut self.open else { return Ok(()) };
        writeln!(out, "{line}").on("cannot write", path)
    }

    pub(super) fn close(&mut self) -> Result<(), ExchangeError> {
        let Some((_, path, mut out)) = self.open.take() else { return Ok(()) };
        out.flush().and_then(|()| out.get_ref().sync_all()).on("cannot write", &path)
    }
}

pub(super) struct Jsonl {
    lines: Lines,
}

impl Jsonl {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { lines: Lines::new(root) }
    }
}

impl Writer for Jsonl {
    fn text(&mut self, text: &Text<'_>) -> Result<(), ExchangeError> {
        let (n, k) = (text.batch.len(), text.chosen);
        let slots = |row: usize| row * k..(row + 1) * k;
        let experts: Vec<Vec<Vec<u16>>> = (0..n)
            .map(|row| {
                text.layers.iter().map(|l| l.experts[slots(row)].iter().map(|id| id.0).collect()).collect()
            })
            .collect();
        let sample = text.sample;
        let mut line = json!({
            "dataset": text.dataset,
            "sample_id": sample.sample_id.0,
            "source_file": sample.source_file,
            "source_row": sample.source_row,
            "label": sample.label,
            "text_hash": sample.text_hash,
            "truncated": sample.truncated,
            "begins_with_bos": sample.begins_with_bos,
            "layers": text.layers.iter().map(|layer| layer.number).collect::<Vec<_>>(),
            "experts": experts,
        });
        if let Some(ids) = text.token_ids() {
            line["token_ids"] = ids.collect();
        }
        if let Some(words) = &sample.text {
            line["text"] = words.as_str().into();
        }
        let weights: Option<Vec<&[f32]>> = text.layers.iter().map(|layer| layer.weights.as_deref()).collect();
        if let Some(weights) = weights {
            let of_row =
                |row: usize| weights.iter().map(|layer| layer[slots(row)].to_vec()).collect::<Vec<_>>();
            line["weights"] = json!((0..n).map(of_row).collect::<Vec<_>>());
        }
        self.lines.write(text.dataset, &line)
    }

    fn finish(mut self: Box<Self>) -> Result<(), ExchangeError> {
        self.lines.close()
    }
}
