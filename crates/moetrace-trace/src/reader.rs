//! A recorded shard, played back through the calls that recorded it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use arrow::datatypes::UInt32Type;
use moetrace_routing::{Name, Planes, RoutingGeometry, RoutingSink, TokenId};

use crate::column::Part;
use crate::file::TraceFile;
use crate::metadata::{DATASET, geometry, parse};
use crate::schema::{self, LayerColumns, NLL, TOKEN, token_fields};
use crate::{Playback, SampleRow, TraceColumns, TraceError, read_samples};

/// Rows of the token column decoded at once.
const READ_ROWS: usize = 65_536;

/// One shard's tokens and samples, opened and compared.
pub struct ShardReader {
    file: TraceFile,
    samples_path: PathBuf,
    samples: Vec<SampleRow>,
    geometry: RoutingGeometry,
    columns: TraceColumns,
    dataset: Name,
}

impl std::fmt::Debug for ShardReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShardReader").field("file", &self.file.path()).finish_non_exhaustive()
    }
}

impl ShardReader {
    /// Opens the tokens table `data` with the samples table that belongs to it. Only footers and samples are
    /// read.
    ///
    /// # Errors
    /// A [`TraceError`] that names the file: it cannot be read, is damaged, is newer than this program, lacks
    /// a column, or the two files list different numbers of rows.
    pub fn open(data: &Path, samples: &Path) -> Result<Self, TraceError> {
        let file = TraceFile::open(data, "tokens")?;
        let geometry = geometry(file.metadata(), data)?;
        let dataset: String = parse(file.metadata(), data, DATASET, "a name")?;
        let columns = recorded_columns(&file, &geometry);
        // The data set's name is taken from the metadata: tools that rewrite a file undo the dictionary.
        for field in token_fields(&geometry, columns).iter().filter(|field| field.name() != schema::DATASET) {
            file.expect(field.name(), field.data_type())?;
        }
        let rows = read_samples(samples)?;
        let expected = rows.iter().map(|row| u64::from(row.tokens)).sum();
        if file.rows() != expected {
            let (file, found) = (data.to_owned(), file.rows());
            return Err(TraceError::RowCount { file, samples: samples.to_owned(), found, expected });
        }
        let (samples_path, dataset) = (samples.to_owned(), dataset.into());
        Ok(Self { file, samples_path, samples: rows, geometry, columns, dataset })
    }

    /// The shape of the recorded routing.
    pub fn geometry(&self) -> &RoutingGeometry {
        &self.geometry
    }

    /// Tokens of the shard.
    pub fn rows(&self) -> u64 {
        self.file.rows()
    }

    /// The data set that the shard is of.
    pub fn dataset(&self) -> &Name {
        &self.dataset
    }

    /// Which of the columns that may be absent are there.
    pub fn columns(&self) -> TraceColumns {
        self.columns
    }

    /// The keys that the file carries, without their prefix.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        self.file.metadata()
    }

    /// The texts of the shard, in row order.
    pub fn samples(&self) -> &[SampleRow] {
        &self.samples
    }

    pub(crate) fn file(&self) -> &TraceFile {
        &self.file
    }

    pub(crate) fn samples_path(&self) -> &Path {
        &self.samples_path
    }

    /// The same shard as if it held experts, samples and positions alone: what else it has is neither read nor checked.
    /// For listeners that count experts: the other columns are 9 of 10 bytes.
    #[must_use]
    pub fn experts_only(mut self) -> Self {
        self.columns = TraceColumns {
            weights: false,
            margins: false,
            gate_entropy: false,
            token_ids: false,
            ..TraceColumns::default()
        };
        self
    }

    /// The id of every token, `[rows]`, in row order; `None` where the file leaves them out. Reads that column alone.
    ///
    /// # Errors
    /// [`TraceError::Read`] or [`TraceError::Damaged`].
    pub fn token_ids(&self) -> Result<Option<Vec<TokenId>>, TraceError> {
        if !self.columns.token_ids {
            return Ok(None);
        }
        let mut ids = Vec::new();
        let mut batches = self.file.batches(READ_ROWS, |name| name == TOKEN)?;
        while let Some(batch) = batches.next()? {
            let part = Part { file: self.file.path(), row: ids.len() as u64, batch: &batch };
            ids.extend(part.numbers::<UInt32Type>(TOKEN)?.iter().map(|&id| TokenId(id)));
        }
        Ok(Some(ids))
    }

    /// Begins to read: passes are handed out as they are asked for, with those of the optional planes in
    /// `wants` that the file has.
    ///
    /// # Errors
    /// [`TraceError::Read`] or [`TraceError::Damaged`].
    pub fn playback(self, wants: Planes) -> Result<Playback, TraceError> {
        Playback::new(self, wants)
    }

    /// Plays the shard to `sink` in passes of at most `tokens_per_pass` tokens, samples kept whole (a longer
    /// sample is a pass of its own). Every view is checked as a live one is. An optional plane that the
    /// listener wants and the file lacks is absent; token ids are 0 where the file leaves them out.
    ///
    /// # Errors
    /// A [`TraceError`] naming file and row of what is damaged or inconsistent, and whatever the listener
    /// returns.
    pub fn play(self, tokens_per_pass: usize, sink: &mut dyn RoutingSink) -> Result<(), TraceError> {
        self.playback(sink.wants())?.play(tokens_per_pass, sink)
    }
}

/// Which of the columns that may be absent a tokens table has; a layer lacks what all lack.
pub(crate) fn recorded_columns(file: &TraceFile, geometry: &RoutingGeometry) -> TraceColumns {
    let of_layers = |name: fn(&LayerColumns) -> &String| {
        geometry.layers().iter().any(|&layer| file.has(name(&LayerColumns::of(layer))))
    };
    TraceColumns {
        weights: of_layers(|layer| &layer.weights),
        margins: of_layers(|layer| &layer.margin),
        gate_entropy: of_layers(|layer| &layer.gate_entropy),
        token_ids: file.has(TOKEN),
        text: false,
        logits: of_layers(|layer| &layer.logits),
        shared_gate: of_layers(|layer| &layer.shared_gate),
        nll: file.has(NLL),
        hidden: false,
    }
}
