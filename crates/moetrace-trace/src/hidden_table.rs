//! A hidden table as it is: rows in file order, unchecked, for whoever looks for what is wrong with them.

use std::collections::BTreeMap;
use std::path::Path;

use arrow::datatypes::{Float32Type, UInt16Type, UInt32Type};
use moetrace_routing::RoutingGeometry;

use crate::TraceError;
use crate::file::{RowsAtHand, TraceFile};
use crate::metadata::geometry;
use crate::schema::{HIDDEN, LAYER, POSITION, SAMPLE};

/// The most bytes of hidden states decoded at once.
const READ_BYTES: usize = 8_000_000;

/// A hidden table on the way through its rows.
pub struct HiddenTable {
    file: TraceFile,
    geometry: RoutingGeometry,
    at_hand: RowsAtHand,
}

impl std::fmt::Debug for HiddenTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HiddenTable").field("file", &self.file.path()).finish_non_exhaustive()
    }
}

/// Some rows of a hidden table.
#[derive(Debug, Clone, Copy)]
pub struct HiddenStates<'a> {
    /// Row of its text in the source split, of each row.
    pub sample_ids: &'a [u32],
    /// Position of each row's token.
    pub positions: &'a [u16],
    /// The model's own number of each row's layer.
    pub layers: &'a [u16],
    /// The router's input, `[rows, D]`.
    pub values: &'a [f32],
}

impl HiddenTable {
    /// Opens `path`.
    ///
    /// # Errors
    /// A [`TraceError`] that names the file: it cannot be read, is damaged, is newer than this program, is another
    /// table, or does not say what shape its routing has.
    pub fn open(path: &Path) -> Result<Self, TraceError> {
        let file = TraceFile::open(path, "hidden")?;
        let geometry = geometry(file.metadata(), path)?;
        let rows = (READ_BYTES / (4 * geometry.hidden()).max(1)).max(1);
        let batches = file.batches(rows, |_| true)?;
        Ok(Self { file, geometry, at_hand: RowsAtHand::new(batches) })
    }

    /// The shape of the recorded routing; D is its hidden width.
    pub fn geometry(&self) -> &RoutingGeometry {
        &self.geometry
    }

    /// Rows, as the footer has them.
    pub fn rows(&self) -> u64 {
        self.file.rows()
    }

    /// The keys that the file carries, without their prefix.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        self.file.metadata()
    }

    /// Goes on to the next rows: how many they are, 0 behind the last. After an error there are no more.
    ///
    /// # Errors
    /// [`TraceError::Damaged`] with the row at which decoding stopped.
    pub fn advance(&mut self) -> Result<usize, TraceError> {
        self.at_hand.advance()
    }

    /// The row of the file at which the rows at hand begin.
    pub fn first(&self) -> u64 {
        self.at_hand.first()
    }

    /// The rows at hand; `None` before the first call of [`advance`](Self::advance) and behind the last row.
    ///
    /// # Errors
    /// [`TraceError::Column`] or [`TraceError::Null`].
    pub fn states(&self) -> Result<Option<HiddenStates<'_>>, TraceError> {
        let Some(part) = self.at_hand.part() else { return Ok(None) };
        Ok(Some(HiddenStates {
            sample_ids: part.numbers::<UInt32Type>(SAMPLE)?,
            positions: part.numbers::<UInt16Type>(POSITION)?,
            layers: part.numbers::<UInt16Type>(LAYER)?,
            values: part.lists::<Float32Type>(HIDDEN, self.geometry.hidden())?,
        }))
    }
}
