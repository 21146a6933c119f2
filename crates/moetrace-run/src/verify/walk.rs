//! The rows of one tokens table, from the first to the last.

use std::path::PathBuf;

use moetrace_routing::{ExpertId, MoeOrdinal};
use moetrace_trace::{SampleRow, TokenRows, TokenTable, TraceColumns};

use super::constants::Constants;
use super::layers::LayerRules;
use super::logits::ScoreRounding;
use super::stretches::Stretches;
use super::{FaultKind, Place, Verifying, shard_file};
use crate::Shard;

/// Which text and position each row should be of.
pub(super) struct Layout<'a> {
    samples: &'a [SampleRow],
    /// The row behind each sample.
    ends: Vec<u64>,
}

impl<'a> Layout<'a> {
    pub(super) fn new(samples: &'a [SampleRow]) -> Self {
        let ends = samples.iter().scan(0u64, |end, sample| {
            *end += u64::from(sample.tokens);
            Some(*end)
        });
        Self { samples, ends: ends.collect() }
    }

    pub(super) fn rows(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// The number of a row's sample, and the row's position in it.
    fn at(&self, row: u64) -> Option<(usize, u32)> {
        let index = self.ends.partition_point(|&end| end <= row);
        let begin = self.ends.get(index)? - u64::from(self.samples[index].tokens);
        Some((index, (row - begin) as u32))
    }
}

/// One tokens table on the way through its rows.
pub(super) struct Walk<'a> {
    file: PathBuf,
    dataset: Option<String>,
    layout: Layout<'a>,
    columns: TraceColumns,
    rules: LayerRules<'a>,
    constants: Constants,
    stretches: Stretches,
    /// The token that begins texts, where the tokenizer puts one before them.
    bos: Option<u32>,
    /// Layers whose columns were refused, and whether those of text and position were: said once is enough.
    refused: Vec<bool>,
    keys_refused: bool,
    /// What goes into the record's hash of the tokens.
    input: blake3::Hasher,
    /// Of the rows at hand, those that tell something if they are all alike: not those of BOS tokens.
    counts: Vec<bool>,
    /// Choices of the layer before.
    before: Vec<ExpertId>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(all: &Verifying<'a>, shard: &Shard, table: &TokenTable, layout: Layout<'a>) -> Self {
        let rules = LayerRules {
            geometry: all.geometry,
            weight_sum: all.weight_sum,
            rounded: table.metadata().get("weights").is_some_and(|weights| weights == "f16"),
            is_softmax: all.manifest.imported.is_none(),
            scores: ScoreRounding::of(all.manifest),
        };
        Self {
            file: shard_file("data", shard),
            dataset: all.manifest.datasets.get(shard.dataset).map(|dataset| dataset.name.clone()),
            layout,
            columns: table.columns(),
            rules,
            constants: Constants::new(all.geometry),
            stretches: Stretches::new(all.geometry, table.columns().token_ids),
            bos: all.manifest.tokenizer.as_ref().and_then(|tokenizer| tokenizer.bos_token_id),
            refused: vec![false; all.geometry.layers().len()],
            keys_refused: false,
            input: blake3::Hasher::new(),
            counts: Vec::new(),
            before: Vec::new(),
        }
    }

    pub(super) fn go(mut self, all: &mut Verifying<'_>, mut rows: TokenRows, input_hash: Option<&str>) {
        loop {
            match rows.advance() {
                Ok(0) => break,
                Ok(n) => {
                    all.out.rows += n as u64;
                    self.keys(all, &rows, n);
                    self.losses(all, &rows);
                    self.layers(all, &mut rows);
                    self.stretches.end(rows.first(), &self.counts);
                }
                Err(error) => return all.unreadable(&self.file, &error),
            }
        }
        let found = self.input.finalize().to_hex();
        let has_tokens = self.columns.token_ids && !self.keys_refused;
        if let Some(expected) = input_hash.filter(|hash| has_tokens && **hash != *found) {
            let what = format!("texts and token ids hash to {found}, the model was given {expected}");
            all.faults.of_file(FaultKind::Tokens, &self.file, what);
        }
        all.constants.absorb(&self.constants);
        let kinds = self.constants.report(&self.file, all.geometry, &mut all.faults);
        if all.geometry.chosen() < all.geometry.experts() {
            // What is true of all rows of a layer has been reported.
            for found in self.stretches.found().filter(|found| !kinds.contains(&found.kind)) {
                all.faults.add(found.kind, || (self.place(found.row, Some(found.layer.0)), found.what));
            }
        }
        all.constants.is_reported(kinds);
    }

    fn place(&self, row: u64, layer: Option<u16>) -> Place {
        let at = self.layout.at(row);
        Place {
            row: Some(row),
            dataset: self.dataset.clone(),
            sample: at.map(|(index, _)| self.layout.samples[index].sample_id.0),
            position: at.map(|(_, position)| position),
            layer,
            ..Place::file(&self.file)
        }
    }

    /// Texts, positions and token ids.
    fn keys(&mut self, all: &mut Verifying<'_>, rows: &TokenRows, n: usize) {
        self.counts.clear();
        self.counts.resize(n, true);
        if self.keys_refused {
            return self.stretches.begin(n, None);
        }
        let ids = if self.columns.token_ids { rows.token_ids().map(Some) } else { Ok(None) };
        let (samples, positions, ids) = match (rows.sample_ids(), rows.positions(), ids) {
            (Ok(samples), Ok(positions), Ok(ids)) => (samples, positions, ids),
            (Err(error), ..) | (_, Err(error), _) | (.., Err(error)) => {
                self.keys_refused = true;
                self.stretches.begin(n, None);
                return all.unreadable(&self.file, &error);
            }
        };
        self.stretches.begin(n, ids);
        let mut input = Vec::with_capacity(4 * n);
        let mut due = self.layout.at(rows.first());
        for i in 0..n {
            // Rows beyond the last sample have been reported as too many.
            let Some((index, position)) = due else { break };
            let (sample, row) = (&self.layout.samples[index], rows.first() + i as u64);
            if samples[i] != sample.sample_id.0 {
                let what = format!("a row of sample {}, expected sample {}", samples[i], sample.sample_id);
                all.faults.add(FaultKind::SampleOrder, || (self.place(row, None), what));
            } else if u32::from(positions[i]) != position {
                let what = format!("position {}, expected {position}", positions[i]);
                all.faults.add(FaultKind::Position, || (self.place(row, None), what));
            }
            let is_bos = sample.begins_with_bos && position == 0;
            self.counts[i] = !is_bos;
            if position == 0 {
                input.extend(sample.sample_id.0.to_le_bytes());
                input.extend(u64::from(sample.tokens).to_le_bytes());
            }
            if let Some(id) = ids.map(|ids| ids[i]) {
                // Where rows lie elsewhere, that has been told.
                if position == 0 && (samples[i], positions[i]) == (sample.sample_id.0, 0) {
                    self.first_token(all, row, id, sample.begins_with_bos);
                }
                input.extend(id.to_le_bytes());
                all.token_ids.insert(id);
                if !is_bos {
                    self.constants.see_token(id);
                }
            }
            due = if position + 1 < sample.tokens {
                Some((index, position + 1))
            } else {
                self.layout.at(row + 1)
            };
        }
        self.input.update(&input);
    }

    /// Whether a text begins with BOS as its row says: metrics leave such rows out.
    fn first_token(&self, all: &mut Verifying<'_>, row: u64, id: u32, begins_with_bos: bool) {
        let Some(bos) = self.bos.filter(|&bos| (id == bos) != begins_with_bos) else { return };
        let not = if begins_with_bos { "" } else { "not " };
        let what =
            format!("the first token is {id}, the text is said {not}to begin with BOS, which is {bos}");
        all.faults.add(FaultKind::Samples, || (self.place(row, None), what));
    }

    /// A loss is empty at the first token of a text and nowhere else.
    fn losses(&mut self, all: &mut Verifying<'_>, rows: &TokenRows) {
        if !self.columns.nll {
            return;
        }
        let losses = match rows.losses() {
            Ok(losses) => losses,
            Err(error) => {
                self.columns.nll = false;
                return all.unreadable(&self.file, &error);
            }
        };
        for (row, loss) in (rows.first()..).zip(losses) {
            let is_first = self.layout.at(row).is_none_or(|(_, position)| position == 0);
            let what = match loss {
                Some(nats) if is_first => format!("the loss is {nats}, expected none at the first token"),
                None if !is_first => "the loss is missing".to_owned(),
                Some(nats) if !(nats.is_finite() && nats >= 0.0) => {
                    format!("the loss is {nats}, expected a number of at least 0")
                }
                _ => continue,
            };
            all.faults.add(FaultKind::Loss, || (self.place(row, None), what));
        }
    }

    fn layers(&mut self, all: &mut Verifying<'_>, rows: &mut TokenRows) {
        let first = rows.first();
        let chosen = self.rules.geometry.chosen();
        // Whether `before` holds the choices of the layer before.
        let mut follows = false;
        for (ordinal, layer) in self.rules.geometry.layers().iter().enumerate() {
            if self.refused[ordinal] {
                follows = false;
                continue;
            }
            let planes = match rows.layer(MoeOrdinal(ordinal as u16)) {
                Ok(planes) => planes,
                Err(error) => {
                    (self.refused[ordinal], follows) = (true, false);
                    let (kind, what, row) = all.refusal(&self.file, &error);
                    let place = Place { row, layer: Some(layer.0), ..Place::file(&self.file) };
                    all.faults.add(kind, || (place, what));
                    continue;
                }
            };
            let faults = &mut all.faults;
            self.rules.check(&planes, &mut |kind, row, what| {
                faults.add(kind, || (self.place(first + row as u64, Some(layer.0)), what()));
            });
            let before = follows.then_some(self.before.as_slice());
            self.constants.see_layer(ordinal, &planes, &self.counts, before, chosen);
            self.stretches.see_layer(ordinal, &planes, before, &self.counts, chosen);
            self.before.clear();
            self.before.extend_from_slice(planes.experts);
            follows = true;
        }
    }
}
