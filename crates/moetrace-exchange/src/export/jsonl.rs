//! One JSON object for each text.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::PathBuf;

use serde::Serialize;

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

    pub(super) fn write(&mut self, dataset: &str, line: &impl Serialize) -> Result<(), ExchangeError> {
        if self.open.as_ref().is_none_or(|(open, ..)| open != dataset) {
            self.close()?;
            let path = dataset_file(&self.root, dataset, "jsonl");
            let file = File::create_new(&path).on("cannot create", &path)?;
            self.open = Some((dataset.to_owned(), path, BufWriter::new(file)));
        }
        let Some((_, path, out)) = &mut self.open else { return Ok(()) };
        let written = serde_json::to_writer(&mut *out, line).map_err(std::io::Error::from);
        written.and_then(|()| out.write_all(b"\n")).on("cannot write", path)
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

/// A text as it is written. Numbers are printed with as many digits as tell one `f32` from the next.
#[derive(Serialize)]
struct Line<'a> {
    dataset: &'a str,
    sample_id: u32,
    source_file: &'a str,
    source_row: u64,
    label: Option<&'a str>,
    text_hash: &'a str,
    truncated: bool,
    begins_with_bos: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<Vec<u32>>,
    /// `[L]`.
    layers: Vec<u16>,
    /// `[N][L][K]`.
    experts: Vec<Vec<Vec<u16>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    weights: Option<Vec<Vec<&'a [f32]>>>,
}

impl Writer for Jsonl {
    fn text(&mut self, text: &Text<'_>) -> Result<(), ExchangeError> {
        let (n, k) = (text.batch.len(), text.chosen);
        let slots = |row: usize| row * k..(row + 1) * k;
        let ids = |row: usize| {
            text.layers.iter().map(|l| l.experts[slots(row)].iter().map(|id| id.0).collect()).collect()
        };
        let planes: Option<Vec<&[f32]>> = text.layers.iter().map(|layer| layer.weights.as_deref()).collect();
        let sample = text.sample;
        let line = Line {
            dataset: text.dataset,
            sample_id: sample.sample_id.0,
            source_file: &sample.source_file,
            source_row: sample.source_row,
            label: sample.label.as_deref(),
            text_hash: &sample.text_hash,
            truncated: sample.truncated,
            begins_with_bos: sample.begins_with_bos,
            text: sample.text.as_deref(),
            token_ids: text.token_ids().map(Iterator::collect),
            layers: text.layers.iter().map(|layer| layer.number).collect(),
            experts: (0..n).map(ids).collect(),
            weights: planes.map(|planes| by_row(&planes, n, k)),
        };
        self.lines.write(text.dataset, &line)
    }

    fn finish(mut self: Box<Self>) -> Result<(), ExchangeError> {
        self.lines.close()
    }
}

/// Planes `[L]` of `[N, K]` as `[N][L][K]`.
fn by_row<'a>(planes: &[&'a [f32]], n: usize, k: usize) -> Vec<Vec<&'a [f32]>> {
    (0..n).map(|row| planes.iter().map(|plane| &plane[row * k..(row + 1) * k]).collect()).collect()
}
