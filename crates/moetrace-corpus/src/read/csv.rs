//! Comma- and tab-separated records, quoted fields with line feeds in them included.
//!
//! The first record is a header if it has the column asked for, or no column was asked for and one of its cells
//! is a name known to head a text column. Without header the column is asked for by number from 0, or there is
//! only one. Asked for a number, a first record with a known name in any cell is a header too.

use std::io::BufRead;
use std::path::Path;

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};
use serde_json::Value;

use super::columns::{self, ChosenColumns, Kind, LABEL_BYTES};
use super::jsonl::content_of;
use super::open::TextFile;
use super::{BadRow, Content, Row, RowSink, Wanted};
use crate::error::ColumnNames;
use crate::{CorpusError, SkipReason};

/// More fields than this make a record too long.
const FIELDS: usize = 1 << 16;

pub(crate) fn read(
    path: &Path,
    delimiter: u8,
    wanted: Wanted<'_>,
    sink: &mut RowSink<'_>,
) -> Result<Option<ChosenColumns>, CorpusError> {
    let text = TextFile::open(path)?;
    let compressed = text.compressed;
    let mut records = Records::new(text.reader, delimiter, wanted.record_bytes());
    let mut layout: Option<Layout> = None;
    while let Some(record) = records.next().map_err(|e| super::damaged_or_io(path, compressed, e))? {
        let fields = match record.fields {
            Ok(fields) => fields,
            Err(why) => {
                if sink(Row::bad(record.line, why))?.is_break() {
                    break;
                }
                continue;
            }
        };
        if layout.is_none() {
            let first = Layout::of(path, &fields, wanted.column)?;
            let is_header = first.is_header;
            layout = Some(first);
            if is_header {
                continue;
            }
        }
        let Some(layout) = &layout else { continue };
        if sink(layout.row(record.line, &fields))?.is_break() {
            break;
        }
    }
    Ok(layout.map(|layout| layout.columns))
}

/// Where the two columns are.
struct Layout {
    columns: ChosenColumns,
    text: usize,
    label: Option<usize>,
    is_header: bool,
}

impl Layout {
    fn of(path: &Path, first: &Fields<'_>, asked: Option<&str>) -> Result<Self, CorpusError> {
        let names: Vec<String> =
            first.iter().map(|cell| String::from_utf8_lossy(cell).into_owned()).collect();
        let by_name = |columns: ChosenColumns| {
            let index = |wanted: &str| names.iter().position(|name| name == wanted);
            let text = index(&columns.text).unwrap_or_default();
            let label = columns.label.as_deref().and_then(index);
            Self { columns, text, label, is_header: true }
        };
        let by_number = |text: usize| {
            if names.iter().any(|name| columns::is_known(name)) {
                let label = columns::label_among(&names, &names[text]).map(str::to_owned);
                return by_name(ChosenColumns { text: names[text].clone(), label });
            }
            let columns = ChosenColumns { text: text.to_string(), label: None };
            Self { columns, text, label: None, is_header: false }
        };
        match columns::choose(path, &names, asked) {
            Ok(columns) => Ok(by_name(columns)),
            Err(error) => match asked.map(str::parse::<usize>) {
                Some(Ok(number)) if number < names.len() => Ok(by_number(number)),
                None if names.len() == 1 => Ok(by_number(0)),
                Some(_) => Err(error),
                None => Err(CorpusError::NoTextColumn { path: path.to_owned(), columns: ColumnNames(names) }),
            },
        }
    }

    fn row<'f>(&self, line: u64, fields: &Fields<'f>) -> Row<'f> {
        let cell = |bytes: &'f [u8]| std::str::from_utf8(bytes).map_err(BadRow::invalid_utf8);
        let content = fields
            .get(self.text)
            .ok_or_else(|| BadRow::missing(&self.columns.text))
            .and_then(cell)
            .and_then(|text| self.content(text));
        let label = self.label.and_then(|i| fields.get(i)).and_then(|bytes| std::str::from_utf8(bytes).ok());
        let label = label.filter(|l| !l.is_empty() && l.len() <= LABEL_BYTES).map(Into::into);
        Row { line, content, label }
    }

    /// Token ids and conversations stand in a cell as JSON.
    fn content<'f>(&self, text: &'f str) -> Result<Content<'f>, BadRow> {
        let kind = Kind::of(&self.columns.text);
        if kind == Kind::Text {
            return Ok(Content::Text(text.into()));
        }
        let value: Value = serde_json::from_str(text)
            .map_err(|_| BadRow::wrong_type(&self.columns.text, "no JSON", kind.expected()))?;
        content_of(value, &self.columns.text)
    }
}

/// The fields of one record.
struct Fields<'r> {
    bytes: &'r [u8],
    ends: &'r [usize],
}

impl<'r> Fields<'r> {
    fn get(&self, index: usize) -> Option<&'r [u8]> {
        let end = *self.ends.get(index)?;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.bytes.get(start..end)
    }

    fn iter(&self) -> impl Iterator<Item = &'r [u8]> + '_ {
        (0..self.ends.len()).filter_map(|i| self.get(i))
    }
}

struct Record<'r> {
    line: u64,
    /// Or that the record exceeds the limit, or does not end.
    fields: Result<Fields<'r>, BadRow>,
}

struct Records<R> {
    input: R,
    parser: Reader,
    limit: usize,
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl<R: BufRead> Records<R> {
    fn new(input: R, delimiter: u8, limit: usize) -> Self {
        let parser = ReaderBuilder::new().delimiter(delimiter).build();
        Self { input, parser, limit, bytes: vec![0; 1024], ends: vec![0; 32] }
    }

    fn next(&mut self) -> std::io::Result<Option<Record<'_>>> {
        self.pass_blank_lines()?;
        let line = self.parser.line();
        let (mut bytes, mut ends, mut whole, mut begun) = (0, 0, true, false);
        loop {
            let input = self.input.fill_buf()?;
            // At the end of the input the parser would close an open quote without a word; a line feed ends every
            // other record just as well.
            let (at_end, until) = (input.is_empty() && begun, self.parser.line());
            let input = if at_end { b"\n" } else { input };
            let (result, used, written, ended) =
                self.parser.read_record(input, &mut self.bytes[bytes..], &mut self.ends[ends..]);
            begun = begun || used > 0;
            self.input.consume(if at_end { 0 } else { used });
            (bytes, ends) = (bytes + written, ends + ended);
            match result {
                ReadRecordResult::InputEmpty if at_end => {
                    self.parser.reset();
                    let detail =
                        format_args!("a quote in it is still open at the end of the file, line {until}");
                    let why = BadRow::new(SkipReason::UnclosedQuote, detail);
                    return Ok(Some(Record { line, fields: Err(why) }));
                }
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull if whole && bytes < self.limit => {
                    self.bytes.resize((self.bytes.len() * 2).min(self.limit), 0);
                }
                ReadRecordResult::OutputEndsFull if whole && ends < FIELDS => {
                    self.ends.resize(self.ends.len() * 2, 0);
                }
                // Over a limit: the parser runs on to the end of the record, its output overwritten.
                ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull => {
                    (bytes, ends, whole) = (0, 0, false);
                }
                ReadRecordResult::Record => {
                    let fields = Fields { bytes: &self.bytes[..bytes], ends: &self.ends[..ends] };
                    let too_long = || BadRow::too_long(self.limit);
                    return Ok(Some(Record { line, fields: whole.then_some(fields).ok_or_else(too_long) }));
                }
                ReadRecordResult::End => return Ok(None),
            }
        }
    }

    /// Blank lines are no records, and must not count as the line where the next one begins.
    fn pass_blank_lines(&mut self) -> std::io::Result<()> {
        while let Some(&byte) = self.input.fill_buf()?.first() {
            match byte {
                b'\n' => self.parser.set_line(self.parser.line() + 1),
                b'\r' => {}
                _ => break,
            }
            self.input.consume(1);
        }
        Ok(())
    }
}
