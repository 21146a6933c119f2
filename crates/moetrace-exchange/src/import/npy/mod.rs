//! `NumPy` arrays of expert ids, `[tokens, layers, K]`, as serving engines return them for a request: one file a text.
//!
//! A source is one such file or a folder of them. Beside `NAME.npy` may lie `NAME.weights.npy`, of the same shape, and
//! `NAME.tokens.npy`, `[tokens]`.

mod array;

use std::path::{Path, PathBuf};

use self::array::Array;
use super::ImportSettings;
use super::text::{Opened, Shape, Text, TextLayer, TextReader, TokenRules, add_token, short};
use crate::ExchangeError;
use crate::error::OnPath;

pub(super) fn open(root: &Path, settings: &ImportSettings) -> Result<Opened, ExchangeError> {
    let arrays = arrays(root)?;
    let Some(first) = arrays.first() else {
        return Err(ExchangeError::file(root, "it holds no .npy file of expert ids"));
    };
    let experts = settings.experts.ok_or_else(|| ExchangeError::NotSaid {
        path: root.to_owned(),
        what: "the arrays do not say how many experts there are",
        flag: "--experts",
    })?;
    let [_, depth, chosen] = three(first)?;
    if settings.chosen.is_some_and(|asked| asked != chosen) {
        let what = format!("{chosen} experts a token, expected {}", settings.chosen.unwrap_or(0));
        return Err(ExchangeError::file(first, what));
    }
    let (layers, picked) = pick(first, depth, settings.layers.as_deref())?;
    let (has_weights, has_tokens) = (beside(first, "weights").exists(), beside(first, "tokens").exists());
    let mut files = Vec::new();
    for path in &arrays {
        let weights = Some(beside(path, "weights")).filter(|_| has_weights);
        let tokens = Some(beside(path, "tokens")).filter(|_| has_tokens);
        for path in std::iter::once(path.clone()).chain(weights).chain(tokens) {
            files.push((path.file_name().unwrap_or_default().to_string_lossy().into_owned(), path));
        }
    }
    let step = 1 + usize::from(has_weights) + usize::from(has_tokens);
    let shape = Shape { experts, chosen, layers };
    let reader = NpyReader {
        arrays,
        at: 0,
        open: None,
        picked,
        depth,
        rules: TokenRules { experts, precision: settings.weights },
        chosen,
        has_weights,
        has_tokens,
        step,
        text_tokens: settings.text_tokens,
    };
    Ok(Opened { files, shape, has_weights, has_tokens, reader: Box::new(reader) })
}

/// Files of expert ids in name order. What lies beside one that is not there is not passed over: a text would be lost.
fn arrays(root: &Path) -> Result<Vec<PathBuf>, ExchangeError> {
    if !root.is_dir() {
        return Ok(vec![root.to_owned()]);
    }
    let (mut found, mut others) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(root).on("cannot read", root)? {
        let path = entry.on("cannot read", root)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(stem) = name.strip_suffix(".npy") else { continue };
        match stem.strip_suffix(".weights").or_else(|| stem.strip_suffix(".tokens")) {
            Some(of) => others.push((root.join(format!("{of}.npy")), path)),
            None => found.push(path),
        }
    }
    found.sort();
    others.sort();
    match others.iter().find(|(of, _)| found.binary_search(of).is_err()) {
        Some((of, path)) => {
            let of = of.file_name().unwrap_or_default().display();
            Err(ExchangeError::file(path, format!("there is no {of} beside it")))
        }
        None => Ok(found),
    }
}

/// `NAME.weights.npy` of `NAME.npy`.
fn beside(path: &Path, what: &str) -> PathBuf {
    path.with_extension(format!("{what}.npy"))
}

fn three(path: &Path) -> Result<[usize; 3], ExchangeError> {
    let array = Array::open(path)?;
    <[usize; 3]>::try_from(array.shape()).map_err(|_| {
        let what = format!("its shape is {:?}, expected [tokens, layers, K]", array.shape());
        ExchangeError::file(path, what)
    })
}

/// The layers' own numbers, and where they lie in an array that is `depth` layers deep: it has the layers that were
/// named, or all of the model's, of which those are taken.
fn pick(path: &Path, depth: usize, named: Option<&[u16]>) -> Result<(Vec<u16>, Vec<usize>), ExchangeError> {
    let Some(named) = named else {
        let all = u16::try_from(depth)
            .map_err(|_| ExchangeError::file(path, format!("{depth} layers, expected at most 65535")))?;
        return Ok(((0..all).collect(), (0..depth).collect()));
    };
    if named.len() == depth {
        return Ok((named.to_vec(), (0..depth).collect()));
    }
    if let Some(beyond) = named.iter().find(|&&layer| usize::from(layer) >= depth) {
        let what = format!("it has {depth} layers, neither as many as --layers names nor a layer {beyond}");
        return Err(ExchangeError::file(path, what));
    }
    Ok((named.to_vec(), named.iter().map(|&layer| usize::from(layer)).collect()))
}

struct NpyReader {
    arrays: Vec<PathBuf>,
    /// The array that comes next, or is open.
    at: usize,
    open: Option<Open>,
    /// Which layers of an array are taken.
    picked: Vec<usize>,
    depth: usize,
    rules: TokenRules,
    chosen: usize,
    has_weights: bool,
    has_tokens: bool,
    /// Files of a text.
    step: usize,
    text_tokens: Option<usize>,
}

/// The arrays of one text, or of several that lie behind each other in one.
struct Open {
    ids: Array,
    weights: Option<Array>,
    tokens: Option<Array>,
    row: usize,
    rows: usize,
}

impl NpyReader {
    fn open(&self, path: &Path) -> Result<Open, ExchangeError> {
        let ids = Array::open(path)?;
        let shape = ids.shape().to_vec();
        let expected = [shape.first().copied().unwrap_or(0), self.depth, self.chosen];
        let beside = |what: &str, is_there: bool, expected: &[usize]| {
            let path = beside(path, what);
            if path.exists() != is_there {
                let state =
                    if is_there { "is missing, the first text has one" } else { "the first text has none" };
                return Err(ExchangeError::file(&path, state));
            }
            let array = is_there.then(|| Array::open(&path)).transpose()?;
            match array {
                Some(array) if array.shape() != expected => {
                    let what = format!("its shape is {:?}, expected {expected:?}", array.shape());
                    Err(ExchangeError::file(&path, what))
                }
                other => Ok(other),
            }
        };
        if shape != expected || shape[0] == 0 {
            let what =
                format!("its shape is {shape:?}, expected [1 or more, {}, {}]", self.depth, self.chosen);
            return Err(ExchangeError::file(path, what));
        }
        Ok(Open {
            weights: beside("weights", self.has_weights, &expected)?,
            tokens: beside("tokens", self.has_tokens, &expected[..1])?,
            rows: shape[0],
            ids,
            row: 0,
        })
    }
}

impl TextReader for NpyReader {
    fn next(&mut self) -> Result<Option<Text>, ExchangeError> {
        let Some(path) = self.arrays.get(self.at).cloned() else { return Ok(None) };
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.open(&path)?,
        };
        let len = self.text_tokens.unwrap_or(open.rows).max(1).min(open.rows - open.row);
        let slots = self.depth * self.chosen;
        let ids = open.ids.integers(len * slots)?;
        let weights = open.weights.as_mut().map(|array| array.floats(len * slots)).transpose()?;
        let mut hasher = blake3::Hasher::new();
        for id in &ids {
            hasher.update(&id.to_le_bytes());
        }
        let tokens = open.tokens.as_mut().map(|array| array.integers(len)).transpose()?;
        let row_of =
            |path: &Path, row: usize, what: String| ExchangeError::row(path, (open.row + row) as u64, what);
        let wrong = |row: usize, what: String| row_of(&path, row, what);
        let mut layers = Vec::new();
        for &layer in &self.picked {
            let mut choices = TextLayer::default();
            for row in 0..len {
                let at = (row * self.depth + layer) * self.chosen;
                let weights = weights.as_ref().map(|weights| &weights[at..at + self.chosen]);
                add_token(&mut choices, &ids[at..at + self.chosen], weights, self.rules).map_err(
                    |fault| {
                        let path = if fault.is_in_weights { beside(&path, "weights") } else { path.clone() };
                        row_of(&path, row, format!("layer {layer} of the array: {}", fault.what))
                    },
                )?;
            }
            layers.push(choices);
        }
        let tokens = match tokens {
            None => None,
            Some(ids) => Some(token_ids(&ids).map_err(|(row, id)| {
                let what = format!("token id {id}, expected 0 to {}", u32::MAX);
                row_of(&beside(&path, "tokens"), row, what)
            })?),
        };
        let file = u32::try_from(self.at * self.step).map_err(|_| wrong(0, "too many files".into()))?;
        let row = u32::try_from(open.row).map_err(|_| wrong(0, "too many rows".into()))?;
        let hash = tokens.as_deref().map_or_else(|| short(&hasher), super::plan::hash_of_ids);
        open.row += len;
        if open.row == open.rows {
            self.at += 1;
        } else {
            self.open = Some(open);
        }
        Ok(Some(Text { file, row, len, tokens, layers, hash }))
    }
}

/// Vocabulary ids of 32 bits, or the first that is none and its row.
fn token_ids(ids: &[i64]) -> Result<Vec<u32>, (usize, i64)> {
    ids.iter().enumerate().map(|(row, &id)| u32::try_from(id).map_err(|_| (row, id))).collect()
}
