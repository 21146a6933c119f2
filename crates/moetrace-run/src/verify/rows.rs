//! The tokens table of a shard, walked through beside its samples.

use moetrace_trace::{SampleRow, TokenTable};

use super::walk::{Layout, Walk};
use super::{FaultKind, Place, Verifying, shard_file};
use crate::Shard;

impl Verifying<'_> {
    /// Reads every row of a shard; `input_hash` is what its record says of the tokens.
    pub(super) fn rows(&mut self, shard: &Shard, samples: &[SampleRow], input_hash: Option<&str>) {
        let file = shard_file("data", shard);
        if !self.is_there("data", shard) {
            return;
        }
        let table = match TokenTable::open(&self.folder.shard_path("data", &shard.name)) {
            Ok(table) => table,
            Err(error) => return self.unreadable(&file, &error),
        };
        self.keys(shard, "data", table.metadata());
        if !self.has_the_shape(shard, &table) {
            return;
        }
        self.columns(shard, &table);
        let layout = Layout::new(samples);
        if table.rows() != layout.rows() {
            let what = format!("it holds {} rows, its samples table lists {}", table.rows(), layout.rows());
            self.faults.of_file(FaultKind::RowCount, &file, what);
        }
        let walk = Walk::new(self, shard, &table, layout);
        match table.read() {
            Ok(rows) => walk.go(self, rows, input_hash),
            Err(error) => self.unreadable(&file, &error),
        }
    }

    /// Whether a table's routing has the manifest's shape; what has another is not read.
    fn has_the_shape(&mut self, shard: &Shard, table: &TokenTable) -> bool {
        let (found, expected) = (table.geometry(), self.geometry);
        let before = self.faults.count(FaultKind::Metadata);
        for (what, found, expected) in [
            ("experts", found.experts(), expected.experts()),
            ("experts per token", found.chosen(), expected.chosen()),
        ] {
            if found != expected {
                let what = format!("{found} {what}, the manifest says {expected}");
                self.faults.of_file(FaultKind::Metadata, &shard_file("data", shard), what);
            }
        }
        let missing = expected.layers().iter().filter(|layer| !found.layers().contains(layer));
        for layer in missing {
            let place = || Place { layer: Some(layer.0), ..Place::file(shard_file("data", shard)) };
            self.faults.add(FaultKind::MissingLayer, || (place(), "the file does not list the layer".into()));
        }
        if found.layers() != expected.layers() {
            let what = "its layers are not those of the manifest";
            self.faults.of_file(FaultKind::Metadata, &shard_file("data", shard), what);
        }
        before == self.faults.count(FaultKind::Metadata)
    }

    /// Whether those columns are there that the settings ask for, and no others.
    fn columns(&mut self, shard: &Shard, table: &TokenTable) {
        let is_on = |name: &str| self.manifest.identity.get(name).is_some_and(|value| value == "true");
        let lacks = |plane: &str| {
            self.manifest.imported.as_ref().is_some_and(|facts| facts.not_recorded.iter().any(|n| n == plane))
        };
        let columns = table.columns();
        let expected = [
            ("token_id", columns.token_ids, !is_on("no_tokens")),
            ("logits_LL", columns.logits, is_on("router_logits")),
            ("nll", columns.nll, is_on("nll")),
            ("weights_LL", columns.weights, !lacks("weights")),
            ("margin_LL", columns.margins, !lacks("margin")),
            ("gate_entropy_LL", columns.gate_entropy, !lacks("gate_entropy")),
        ];
        for (name, is_there, is_recorded) in expected {
            if is_there != is_recorded {
                let state = if is_there { "is there, though it is not recorded" } else { "is missing" };
                let what = format!("column `{name}` {state}");
                self.faults.of_file(FaultKind::Column, &shard_file("data", shard), what);
            }
        }
    }
}
