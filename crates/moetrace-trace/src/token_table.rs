//! A tokens table as it is: rows in file order, their values unchecked, for whoever looks for what is wrong with them.

use std::collections::BTreeMap;
use std::path::Path;

use arrow::array::Array;
use arrow::datatypes::{Float32Type, UInt16Type, UInt32Type};
use moetrace_routing::{MoeOrdinal, RoutingGeometry, RoutingPlanes};

use crate::file::{RowsAtHand, TraceFile};
use crate::layer::LayerBuffers;
use crate::metadata::geometry;
use crate::reader::recorded_columns;
use crate::schema::{self, NLL, POSITION, SAMPLE, TOKEN};
use crate::{TraceColumns, TraceError};

/// Rows decoded at once.
const READ_ROWS: usize = 4_096;

/// A tokens table that has been opened. Only its footer has been read.
pub struct TokenTable {
    file: TraceFile,
    geometry: RoutingGeometry,
    columns: TraceColumns,
}

impl std::fmt::Debug for TokenTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenTable").field("file", &self.file.path()).finish_non_exhaustive()
    }
}

impl TokenTable {
    /// Opens `path`. Columns may be missing or of another type, which whoever asks for them is told.
    ///
    /// # Errors
    /// A [`TraceError`] that names the file: it cannot be read, is damaged, is newer than this program, is another
    /// table, or does not say what shape its routing has.
    pub fn open(path: &Path) -> Result<Self, TraceError> {
        let file = TraceFile::open(path, "tokens")?;
        let geometry = geometry(file.metadata(), path)?;
        let columns = recorded_columns(&file, &geometry);
        Ok(Self { file, geometry, columns })
    }

    /// The shape of the recorded routing.
    pub fn geometry(&self) -> &RoutingGeometry {
        &self.geometry
    }

    /// Which of the columns that may be absent are there.
    pub fn columns(&self) -> TraceColumns {
        self.columns
    }

    /// Rows, as the footer has them.
    pub fn rows(&self) -> u64 {
        self.file.rows()
    }

    /// The keys that the file carries, without their prefix.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        self.file.metadata()
    }

    /// Begins to read.
    ///
    /// # Errors
    /// [`TraceError::Read`] or [`TraceError::Damaged`].
    pub fn read(self) -> Result<TokenRows, TraceError> {
        let batches = self.file.batches(READ_ROWS, |name| name != schema::DATASET)?;
        Ok(TokenRows { table: self, rows: RowsAtHand::new(batches), buffers: LayerBuffers::default() })
    }
}

/// The rows of a tokens table, some thousands at a time.
pub struct TokenRows {
    table: TokenTable,
    rows: RowsAtHand,
    buffers: LayerBuffers,
}

impl std::fmt::Debug for TokenRows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenRows")
            .field("table", &self.table)
            .field("first", &self.first())
            .finish_non_exhaustive()
    }
}

impl TokenRows {
    /// Goes on to the next rows: how many they are, 0 behind the last. After an error there are no more.
    ///
    /// # Errors
    /// [`TraceError::Damaged`] with the row at which decoding stopped.
    pub fn advance(&mut self) -> Result<usize, TraceError> {
        self.rows.advance()
    }

    /// The table.
    pub fn table(&self) -> &TokenTable {
        &self.table
    }

    /// The row of the file at which the rows at hand begin.
    pub fn first(&self) -> u64 {
        self.rows.first()
    }

    /// Row of its text in the source split, of each row.
    ///
    /// # Errors
    /// [`TraceError::Column`] or [`TraceError::Null`], as for every column below.
    pub fn sample_ids(&self) -> Result<&[u32], TraceError> {
        self.rows.part().map_or(Ok(&[]), |part| part.numbers::<UInt32Type>(SAMPLE))
    }

    /// Position of each row.
    ///
    /// # Errors
    /// As above.
    pub fn positions(&self) -> Result<&[u16], TraceError> {
        self.rows.part().map_or(Ok(&[]), |part| part.numbers::<UInt16Type>(POSITION))
    }

    /// Vocabulary id of each row.
    ///
    /// # Errors
    /// As above.
    pub fn token_ids(&self) -> Result<&[u32], TraceError> {
        self.rows.part().map_or(Ok(&[]), |part| part.numbers::<UInt32Type>(TOKEN))
    }

    /// Loss of each row in nats, `None` where the cell is empty.
    ///
    /// # Errors
    /// As above.
    pub fn losses(&self) -> Result<Vec<Option<f32>>, TraceError> {
        let Some(part) = self.rows.part() else { return Ok(Vec::new()) };
        let column = part.nullable::<Float32Type>(NLL)?;
        Ok((0..column.len()).map(|i| column.is_valid(i).then(|| column.value(i))).collect())
    }

    /// What one MoE layer's columns hold, `[N]` and `[N, K]` as in a view, but not checked for anything.
    ///
    /// # Errors
    /// As above.
    pub fn layer(&mut self, ordinal: MoeOrdinal) -> Result<RoutingPlanes<'_>, TraceError> {
        self.buffers.clear();
        let geometry = &self.table.geometry;
        if let (Some(layer), Some(part)) = (geometry.layer(ordinal), self.rows.part()) {
            self.buffers.add(&part, layer, geometry, self.table.columns)?;
        }
        Ok(self.buffers.planes(self.table.columns, None))
    }
}
