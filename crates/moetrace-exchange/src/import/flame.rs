//! FLAME-MoE-Traces (arXiv 2505.20225): `actives/iter_N/layer_LL.parquet` with `scores` and `indices`, lists of K in
//! falling order, beside `samples/*.parquet` with `token_id`; row i of each is the same token.
//!
//! A source is a capture's folder if it has one `iter_N`, or such a folder. There are no boundaries between texts.

use std::path::{Path, PathBuf};

use super::ImportSettings;
use super::layer_files::layer_files;
use super::lists::Column;
use super::text::{Opened, Shape, Text, TextLayer, TextReader, TokenRules, add_token};
use crate::ExchangeError;
use crate::error::OnPath;

pub(super) fn open(root: &Path, settings: &ImportSettings) -> Result<Opened, ExchangeError> {
    let (actives, samples) = folders(root)?;
    let layers = layer_files(&actives, "layer_", ".parquet")?;
    let not_said = |what, flag| ExchangeError::NotSaid { path: root.to_owned(), what, flag };
    let text_tokens = settings
        .text_tokens
        .filter(|&rows| rows > 0)
        .ok_or_else(|| not_said("the files do not say where texts begin", "--text-tokens"))?;
    let experts = settings
        .experts
        .ok_or_else(|| not_said("the files do not say how many experts there are", "--experts"))?;
    let mut columns = Vec::new();
    for (_, path) in &layers {
        columns.push((Column::open(path, "indices")?, Column::open(path, "scores")?));
    }
    let chosen = match (settings.chosen, columns.first_mut()) {
        (Some(chosen), _) => chosen,
        (None, Some((indices, _))) => indices.width()?,
        (None, None) => return Err(ExchangeError::file(&actives, "it holds no layer_LL.parquet")),
    };
    let tokens: Vec<PathBuf> = named(&samples, ".parquet")?.into_iter().map(|(_, path)| path).collect();
    let mut files = Vec::new();
    for path in tokens.iter().chain(layers.iter().map(|(_, path)| path)) {
        let base = root.ancestors().find(|above| path.starts_with(above)).unwrap_or(root);
        files.push((path.strip_prefix(base).unwrap_or(path).display().to_string(), path.clone()));
    }
    let reader = FlameReader {
        paths: layers.iter().map(|(_, path)| path.clone()).collect(),
        columns,
        tokens: Tokens { paths: tokens, file: 0, open: None },
        rules: TokenRules { experts, precision: settings.weights },
        chosen,
        text_tokens,
        row: 0,
        checked: false,
    };
    Ok(Opened {
        files,
        shape: Shape { experts, chosen, layers: layers.iter().map(|(layer, _)| *layer).collect() },
        has_weights: true,
        has_tokens: true,
        reader: Box::new(reader),
    })
}

/// The folder of one iteration, and that of the token ids.
fn folders(root: &Path) -> Result<(PathBuf, PathBuf), ExchangeError> {
    if root.join("actives").is_dir() {
        let iterations: Vec<PathBuf> = named(&root.join("actives"), "")?
            .into_iter()
            .map(|(_, path)| path)
            .filter(|path| path.is_dir())
            .collect();
        let [one] = iterations.as_slice() else {
            let what =
                format!("actives holds {} iterations; name one of them, as actives/iter_N", iterations.len());
            return Err(ExchangeError::file(root, what));
        };
        return Ok((one.clone(), root.join("samples")));
    }
    let capture = root.parent().and_then(Path::parent).unwrap_or(root);
    Ok((root.to_owned(), capture.join("samples")))
}

/// Entries of a folder by name without the suffix that they must have.
fn named(folder: &Path, suffix: &str) -> Result<Vec<(String, PathBuf)>, ExchangeError> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).on("cannot read", folder)? {
        let path = entry.on("cannot read", folder)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(stem) = name.strip_suffix(suffix) {
            found.push((stem.to_owned(), path));
        }
    }
    found.sort();
    Ok(found)
}

struct FlameReader {
    paths: Vec<PathBuf>,
    /// Ids and scores of each layer.
    columns: Vec<(Column, Column)>,
    tokens: Tokens,
    rules: TokenRules,
    chosen: usize,
    text_tokens: usize,
    /// Rows read.
    row: u64,
    /// Whether all files were seen to have as many rows.
    checked: bool,
}

/// Token ids across files.
struct Tokens {
    paths: Vec<PathBuf>,
    /// The one that is open.
    file: usize,
    open: Option<Column>,
}

impl Tokens {
    /// The next `n` ids, fewer at the end.
    fn take(&mut self, n: usize) -> Result<Vec<u32>, ExchangeError> {
        let mut ids = Vec::new();
        while ids.len() < n {
            let Some(path) = self.paths.get(self.file) else { break };
            let column = match &mut self.open {
                Some(column) => column,
                slot => slot.insert(Column::open(path, "token_id")?),
            };
            let more = column.integers(n - ids.len())?;
            if more.is_empty() {
                (self.file, self.open) = (self.file + 1, None);
            }
            for id in more {
                let fits = u32::try_from(id);
                ids.push(
                    fits.map_err(|_| {
                        ExchangeError::file(path, format!("token id {id}, expected 0 or more"))
                    })?,
                );
            }
        }
        Ok(ids)
    }

    fn rows(&self) -> Result<u64, ExchangeError> {
        let rows = self.paths.iter().map(|path| Column::open(path, "token_id").map(|column| column.rows()));
        rows.sum()
    }
}

impl FlameReader {
    fn check_rows(&mut self) -> Result<(), ExchangeError> {
        let expected = self.tokens.rows()?;
        for (path, (indices, scores)) in self.paths.iter().zip(&self.columns) {
            for found in [indices.rows(), scores.rows()] {
                if found != expected {
                    let what = format!("{found} rows, the samples have {expected}");
                    return Err(ExchangeError::file(path, what));
                }
            }
        }
        self.checked = true;
        Ok(())
    }
}

impl TextReader for FlameReader {
    fn next(&mut self) -> Result<Option<Text>, ExchangeError> {
        if !self.checked {
            self.check_rows()?;
        }
        let tokens = self.tokens.take(self.text_tokens)?;
        let len = tokens.len();
        if len == 0 {
            return Ok(None);
        }
        let chosen = self.chosen;
        let mut layers = Vec::new();
        for (path, (indices, scores)) in self.paths.iter().zip(&mut self.columns) {
            let ids = indices.integer_lists(len, chosen)?;
            let weights = scores.float_lists(len, chosen)?;
            if ids.len() != len * chosen || weights.len() != len * chosen {
                return Err(ExchangeError::row(path, self.row, "the file ends inside a text"));
            }
            let mut layer = TextLayer::default();
            for (at, (ids, weights)) in ids.chunks_exact(chosen).zip(weights.chunks_exact(chosen)).enumerate()
            {
                add_token(&mut layer, ids, Some(weights), self.rules)
                    .map_err(|fault| ExchangeError::row(path, self.row + at as u64, fault.what))?;
            }
            layers.push(layer);
        }
        let row = u32::try_from(self.row).map_err(|_| {
            ExchangeError::row(&self.paths[0], self.row, "more rows than the 32 bits of a sample's row hold")
        })?;
        self.row += len as u64;
        let hash = super::plan::hash_of_ids(&tokens);
        Ok(Some(Text { file: 0, row, len, tokens: Some(tokens), layers, hash }))
    }
}
