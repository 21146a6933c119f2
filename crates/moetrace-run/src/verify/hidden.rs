//! The hidden table of a shard: rows, keys and values.

use std::collections::HashMap;
use std::path::PathBuf;

use moetrace_routing::{LayerIndex, RoutingGeometry};
use moetrace_trace::{HiddenStates, HiddenTable, SampleRow};

use super::constants::Constant;
use super::{FaultKind, Place, Verifying, shard_file};
use crate::Shard;

/// Tokens from which on it is no accident that all have the same D numbers: they were chosen by a hash.
const MIN_TOKENS: u64 = 8;

impl Verifying<'_> {
    /// Reads every hidden state of a shard.
    pub(super) fn hidden(&mut self, shard: &Shard, samples: &[SampleRow]) {
        let file = shard_file("hidden", shard);
        if !self.is_there("hidden", shard) {
            return;
        }
        let mut table = match HiddenTable::open(&self.folder.shard_path("hidden", &shard.name)) {
            Ok(table) => table,
            Err(error) => return self.unreadable(&file, &error),
        };
        self.keys(shard, "hidden", table.metadata());
        let expected = self.manifest.hidden_rows(shard);
        if table.rows() != expected {
            let what = format!("it holds {} rows, the manifest says {expected}", table.rows());
            self.faults.of_file(FaultKind::RowCount, &file, what);
        }
        let shape = |g: &RoutingGeometry| (g.experts(), g.chosen(), g.hidden(), g.layers().to_vec());
        if shape(table.geometry()) != shape(self.geometry) {
            let what = "the shape of its routing is not that of the manifest";
            return self.faults.of_file(FaultKind::Metadata, &file, what);
        }
        let dataset = self.manifest.datasets.get(shard.dataset).map(|dataset| dataset.name.clone());
        let mut walk = HiddenWalk::new(file, dataset, self.geometry.layers(), samples);
        loop {
            match table.advance() {
                Ok(0) => break,
                Ok(_) => match table.states() {
                    Ok(Some(states)) => walk.rows(self, table.first(), states),
                    Ok(None) => break,
                    Err(error) => return self.unreadable(&walk.file, &error),
                },
                Err(error) => return self.unreadable(&walk.file, &error),
            }
        }
        walk.constants(self);
    }
}

/// One hidden table on the way through its rows: all layers of a token, token after token.
struct HiddenWalk<'a> {
    file: PathBuf,
    dataset: Option<String>,
    layers: &'a [LayerIndex],
    /// Of each sample its first row in the tokens table, its tokens, and whether the first of these is BOS.
    samples: HashMap<u32, (u64, u32, bool)>,
    /// Sample, position and row of the token at hand.
    token: Option<(u32, u16, u64)>,
    /// What all tokens have had in common so far, layer by layer. BOS tokens do not count: they are alike.
    seen: Vec<Constant<Vec<f32>>>,
}

impl<'a> HiddenWalk<'a> {
    fn new(file: PathBuf, dataset: Option<String>, layers: &'a [LayerIndex], samples: &[SampleRow]) -> Self {
        let firsts = samples.iter().scan(0u64, |next, sample| {
            let first = *next;
            *next += u64::from(sample.tokens);
            Some((sample.sample_id.0, (first, sample.tokens, sample.begins_with_bos)))
        });
        Self {
            file,
            dataset,
            layers,
            samples: firsts.collect(),
            token: None,
            seen: layers.iter().map(|_| Constant::new()).collect(),
        }
    }

    fn rows(&mut self, all: &mut Verifying<'_>, first: u64, states: HiddenStates<'_>) {
        let width = all.geometry.hidden();
        let keys = states.sample_ids.iter().zip(states.positions).zip(states.layers);
        for (i, ((&sample, &position), &layer)) in keys.enumerate() {
            let row = first + i as u64;
            let ordinal = (row % self.layers.len() as u64) as usize;
            let values = &states.values[i * width..][..width];
            let what = self.key(ordinal, sample, position, layer).or_else(|| objection(values, position));
            if let Some(what) = what {
                let place = Place {
                    row: Some(row),
                    dataset: self.dataset.clone(),
                    sample: Some(sample),
                    position: Some(position.into()),
                    layer: Some(layer),
                    ..Place::file(&self.file)
                };
                all.faults.add(FaultKind::Hidden, || (place, what));
            }
            if position > 0
                || !self.samples.get(&sample).is_some_and(|&(.., begins_with_bos)| begins_with_bos)
            {
                self.seen[ordinal].see(values);
            }
        }
    }

    /// What about a row's sample, position and layer is not as it should be, if anything.
    fn key(&mut self, ordinal: usize, sample: u32, position: u16, layer: u16) -> Option<String> {
        let expected = self.layers[ordinal];
        if layer != expected.0 {
            return Some(format!("a row of layer {layer}, expected layer {expected}"));
        }
        let before = self.token;
        if ordinal > 0 {
            let (same, at, _) = before?;
            return ((same, at) != (sample, position)).then(|| {
                format!(
                    "a row of sample {sample}, position {position}, expected sample {same}, position {at}"
                )
            });
        }
        let Some(&(first, tokens, _)) = self.samples.get(&sample) else {
            self.token = None;
            return Some("its text is not in the samples table".to_owned());
        };
        let row = first + u64::from(position);
        self.token = Some((sample, position, row));
        if u32::from(position) >= tokens {
            return Some(format!("position {position} of a text of {tokens} tokens"));
        }
        let (other, at, _) = before.filter(|&(.., before)| before >= row)?;
        Some(format!("it follows sample {other}, position {at}, expected a token behind that"))
    }

    fn constants(&self, all: &mut Verifying<'_>) {
        for (layer, seen) in self.layers.iter().zip(&self.seen) {
            if seen.found(MIN_TOKENS).is_some() {
                let place = Place { layer: Some(layer.0), ..Place::file(&self.file) };
                let what = format!("the same numbers for each of {} tokens", seen.rows());
                all.faults.add(FaultKind::Hidden, || (place, what));
            }
        }
    }
}

/// What about one router input is not so, if anything.
fn objection(values: &[f32], position: u16) -> Option<String> {
    if let Some(bad) = values.iter().find(|value| !value.is_finite()) {
        return Some(format!("a hidden state is {bad}"));
    }
    // A token may have an embedding of zeros, as padding has. Nothing is added to it where it comes first.
    let is_empty = position > 0 && values.iter().all(|&value| value == 0.0);
    is_empty.then(|| format!("all {} hidden states are 0", values.len()))
}
