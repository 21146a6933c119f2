//! Columns of lists of one length, decoded into one buffer of numbers. Arrow's reader of such lists spends twice as long
//! on their bounds and on places for nulls, which these columns do not have, as on the numbers.

use std::fs::File;
use std::sync::Arc;

use moetrace_routing::{ExpertId, RoutingGeometry};
use parquet::basic::Type as PhysicalType;
use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::{DataType, FloatType, Int32Type};
use parquet::errors::ParquetError;
use parquet::file::serialized_reader::SerializedPageReader;

use crate::file::{TraceFile, guard};
use crate::schema::LayerColumns;
use crate::{TraceColumns, TraceError};

/// The lists of one layer: columns that are being read, and the rows of the open pass.
pub(crate) struct LayerLists {
    ids: ListColumn<Int32Type>,
    /// Chosen experts, `[N, K]`.
    pub(crate) experts: Vec<ExpertId>,
    /// Their weights, `[N, K]`, where they are read.
    pub(crate) weights: Option<Floats>,
    /// Router logits, `[N, E]`, where they are read.
    pub(crate) logits: Option<Floats>,
}

/// A column of lists of floats, and the rows of the open pass.
pub(crate) struct Floats {
    column: ListColumn<FloatType>,
    pub(crate) values: Vec<f32>,
}

impl LayerLists {
    /// The lists of every layer, before their first row.
    pub(crate) fn open(
        file: &TraceFile,
        geometry: &RoutingGeometry,
        columns: TraceColumns,
    ) -> Result<Vec<Self>, TraceError> {
        let floats = |is_there: bool, name: String, width| -> Result<Option<Floats>, TraceError> {
            let column = is_there.then(|| ListColumn::open(file, name, width)).transpose()?;
            Ok(column.map(|column| Floats { column, values: Vec::new() }))
        };
        let (k, e) = (geometry.chosen(), geometry.experts());
        let layer = |&layer| {
            let name = LayerColumns::of(layer);
            Ok(Self {
                ids: ListColumn::open(file, name.experts, k)?,
                experts: Vec::new(),
                weights: floats(columns.weights, name.weights, k)?,
                logits: floats(columns.logits, name.logits, e)?,
            })
        };
        geometry.layers().iter().map(layer).collect()
    }

    /// Reads the next `rows` rows, which begin at row `first`, in place of those before; fewer if the file ends.
    pub(crate) fn read(&mut self, file: &TraceFile, first: u64, rows: usize) -> Result<(), TraceError> {
        let ids = self.ids.read(file, first, rows)?;
        self.experts.clear();
        // Of all bits at once, which a loop does several at a time: as unsigned numbers, negative ones have high bits too.
        if ids.iter().fold(0, |bits, &id| bits | id as u32) > u32::from(u16::MAX) {
            return Err(damaged(file, first, "an expert id is beyond 16 bits"));
        }
        self.experts.extend(ids.iter().map(|&id| ExpertId(id as u16)));
        for floats in [&mut self.weights, &mut self.logits].into_iter().flatten() {
            let values = floats.column.read(file, first, rows)?;
            std::mem::swap(&mut floats.values, values);
        }
        Ok(())
    }
}

/// One leaf column, row group by row group.
struct ListColumn<T: DataType> {
    name: String,
    width: usize,
    /// Which of the file's leaf columns it is.
    leaf: usize,
    /// The definition level of a number that is there.
    there: i16,
    next_group: usize,
    reader: Option<ColumnReaderImpl<T>>,
    levels: Levels,
    values: Vec<T::T>,
}

/// Definition and repetition levels: whether a number is there, and whether it begins a list.
#[derive(Default)]
struct Levels {
    definition: Vec<i16>,
    repetition: Vec<i16>,
}

impl<T: DataType> ListColumn<T> {
    fn open(file: &TraceFile, name: String, width: usize) -> Result<Self, TraceError> {
        let schema = file.footer().file_metadata().schema_descr();
        let is_it = |path: &[String]| path.first() == Some(&name);
        let leaf = schema.columns().iter().position(|column| is_it(column.path().parts()));
        let expected: PhysicalType = T::get_physical_type();
        let described = leaf.map(|leaf| (leaf, schema.column(leaf)));
        let fits = described.filter(|(_, c)| c.physical_type() == expected && c.max_rep_level() == 1);
        let Some((leaf, column)) = fits else {
            return Err(TraceError::Column {
                file: file.path().to_owned(),
                column: name,
                found: "something else".to_owned(),
                expected: format!("lists of {expected}"),
            });
        };
        Ok(Self {
            name,
            width,
            leaf,
            there: column.max_def_level(),
            next_group: 0,
            reader: None,
            levels: Levels::default(),
            values: Vec::new(),
        })
    }

    /// The next `rows` lists, one behind the other.
    fn read(&mut self, file: &TraceFile, first: u64, rows: usize) -> Result<&mut Vec<T::T>, TraceError> {
        self.values.clear();
        let mut found = 0;
        while found < rows {
            let records = guard(file.path(), first + found as u64, || Ok(self.some(file, rows - found)?))?;
            if records == 0 {
                // The next row group, if there is one.
                self.reader = self.open_group(file, first + found as u64)?;
                if self.reader.is_none() {
                    break;
                }
            }
            self.check(file, first + found as u64, records)?;
            found += records;
        }
        Ok(&mut self.values)
    }

    /// Lists of the open row group, at most `rows`; none behind its last.
    fn some(&mut self, file: &TraceFile, rows: usize) -> Result<usize, ParquetError> {
        let Some(reader) = &mut self.reader else { return Ok(0) };
        let Levels { definition, repetition } = &mut self.levels;
        definition.clear();
        repetition.clear();
        let before = self.values.len();
        let (records, values, _) =
            reader.read_records(rows, Some(definition), Some(repetition), &mut self.values)?;
        if self.values.len() != before + values {
            return Err(ParquetError::General(format!(
                "{}: a reader's count is wrong",
                file.path().display()
            )));
        }
        Ok(records)
    }

    fn open_group(&mut self, file: &TraceFile, row: u64) -> Result<Option<ColumnReaderImpl<T>>, TraceError> {
        let footer = file.footer();
        if self.next_group == footer.num_row_groups() {
            return Ok(None);
        }
        let group = footer.row_group(self.next_group);
        self.next_group += 1;
        let source: Arc<File> = file.source();
        guard(file.path(), row, || {
            let rows = usize::try_from(group.num_rows())?;
            let pages = SerializedPageReader::new(source, group.column(self.leaf), rows, None)?;
            let column = footer.file_metadata().schema_descr().column(self.leaf);
            Ok(Some(ColumnReaderImpl::<T>::new(column, Box::new(pages))))
        })
    }

    /// Refuses lists of another length, and places without a number.
    fn check(&self, file: &TraceFile, row: u64, records: usize) -> Result<(), TraceError> {
        let (Levels { definition, repetition }, width) = (&self.levels, self.width);
        // Bits and sums, so that a loop does several at once; what is wrong is only looked for where something is.
        if definition.iter().fold(0, |bits, &level| bits | (level ^ self.there)) != 0 {
            let at = definition.iter().position(|&level| level != self.there).unwrap_or(0);
            let (file, column, row) = (file.path().to_owned(), self.name.clone(), row + (at / width) as u64);
            return Err(TraceError::Null { file, column, row });
        }
        // A level is 0 where a list begins and 1 elsewhere, as a column with one repeated field has no other.
        let some = |levels: &[i16]| usize::from(levels.iter().map(|&level| level as u16).sum::<u16>());
        let within: usize = repetition.chunks(1 << 15).map(some).sum();
        let out_of_place = repetition.iter().step_by(width).fold(0, |bits, &level| bits | level);
        if repetition.len() == records * width && within == records * (width - 1) && out_of_place == 0 {
            return Ok(());
        }
        let begins_at = |list: usize| repetition.get(list * width).is_none_or(|&level| level == 0);
        let at = (0..records).position(|list| !begins_at(list + 1)).unwrap_or(0);
        let what = format!("a list of column {} has not {width} numbers", self.name);
        Err(damaged(file, row + at as u64, &what))
    }
}

fn damaged(file: &TraceFile, row: u64, what: &str) -> TraceError {
    TraceError::Damaged { file: file.path().to_owned(), row, source: what.into() }
}
