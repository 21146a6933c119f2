//! JSON objects: one per line, or the elements of an array.

use std::io::{self, BufRead};
use std::path::Path;

use serde_json::Value;

use super::columns::{self, ChosenColumns, Kind, LABEL_BYTES};
use super::fields::{Names, Pick, Picked, parse};
use super::json_array::Elements;
use super::lines::{Line, Lines};
use super::open::TextFile;
use super::{BadRow, Content, Row, RowSink, Wanted};
use crate::error::ColumnNames;
use crate::{CorpusError, Message, SkipReason};

use moetrace_routing::TokenId;

/// What holds one JSON value after the other.
trait Records {
    fn next(&mut self) -> io::Result<Option<Line<'_>>>;
}

impl<R: BufRead> Records for Lines<R> {
    fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        Lines::next(self)
    }
}

impl<R: BufRead> Records for Elements<R> {
    fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        Elements::next(self)
    }
}

/// One object per line; blank lines are no rows.
pub(crate) fn read_lines(
    path: &Path,
    wanted: Wanted<'_>,
    sink: &mut RowSink<'_>,
) -> Result<Option<ChosenColumns>, CorpusError> {
    let text = TextFile::open(path)?;
    let mut reader = JsonReader::new(path, wanted, text.compressed);
    reader.run(&mut Lines::new(text.reader, wanted.record_bytes()), sink)
}

/// An array of objects, or one object per line.
pub(crate) fn read_json(
    path: &Path,
    wanted: Wanted<'_>,
    sink: &mut RowSink<'_>,
) -> Result<Option<ChosenColumns>, CorpusError> {
    let mut text = TextFile::open(path)?;
    let mut reader = JsonReader::new(path, wanted, text.compressed);
    if text.first_byte()? == Some(b'[') {
        return reader.run(&mut Elements::new(text.reader, wanted.record_bytes()), sink);
    }
    reader.first_must_be_whole = true;
    reader.run(&mut Lines::new(text.reader, wanted.record_bytes()), sink)
}

struct JsonReader<'a> {
    path: &'a Path,
    wanted: Wanted<'a>,
    compressed: bool,
    /// A `.json` file that begins with half an object is one nested object, not lines.
    first_must_be_whole: bool,
    /// Decided by the first object that has a column to read.
    chosen: Option<ChosenColumns>,
    /// Why the first object decided nothing; an error unless a later one does.
    absent: Option<CorpusError>,
}

impl<'a> JsonReader<'a> {
    fn new(path: &'a Path, wanted: Wanted<'a>, compressed: bool) -> Self {
        Self { path, wanted, compressed, first_must_be_whole: false, chosen: None, absent: None }
    }

    fn run(
        &mut self,
        records: &mut dyn Records,
        sink: &mut RowSink<'_>,
    ) -> Result<Option<ChosenColumns>, CorpusError> {
        let mut first = true;
        while let Some(record) =
            records.next().map_err(|e| super::damaged_or_io(self.path, self.compressed, e))?
        {
            if record.bytes.is_some_and(|bytes| bytes.iter().all(u8::is_ascii_whitespace)) {
                continue;
            }
            let row = match self.picked(&record) {
                Ok(picked) => self.row(record.number, picked),
                Err(why) if first && self.first_must_be_whole && is_part_of_an_object(&why) => {
                    return Err(CorpusError::NestedJson { path: self.path.to_owned() });
                }
                Err(why) => Row::bad(record.number, why),
            };
            first = false;
            if sink(row)?.is_break() {
                return Ok(self.chosen.take());
            }
        }
        match self.absent.take() {
            Some(error) if self.chosen.is_none() => Err(error),
            _ => Ok(self.chosen.take()),
        }
    }

    /// The two fields that matter, or why the record has none.
    fn picked(&mut self, record: &Line<'_>) -> Result<Picked, BadRow> {
        let bytes = record.bytes.ok_or_else(|| BadRow::too_long(self.wanted.record_bytes()))?;
        let text = std::str::from_utf8(bytes).map_err(BadRow::invalid_utf8)?;
        let chosen = match self.chosen.take() {
            Some(chosen) => chosen,
            None => self.choose(&parse(text, Names)?)?,
        };
        let chosen = self.chosen.insert(chosen);
        let picked = parse(text, Pick(chosen))?;
        // The label column is that of the first object that has one, which need not be the first of all.
        if let Some((_, name)) = &picked.label_found {
            chosen.label = Some(name.clone());
        }
        Ok(picked)
    }

    /// The columns to read, or that the object has none.
    fn choose(&mut self, names: &[String]) -> Result<ChosenColumns, BadRow> {
        columns::choose(self.path, names, self.wanted.column).map_err(|error| {
            self.absent.get_or_insert(error);
            let there = ColumnNames(names.to_vec());
            let name = self.wanted.column.unwrap_or("of a known name");
            BadRow::new(SkipReason::MissingColumn, format_args!("no column {name}; columns: {there}"))
        })
    }

    fn row(&self, line: u64, picked: Picked) -> Row<'static> {
        let column = self.chosen.as_ref().map_or("", |c| c.text.as_str());
        let content = match picked.text {
            None => Err(BadRow::missing(column)),
            Some(value) => content_of(value, column),
        };
        Row { line, content, label: picked.label.as_ref().and_then(label_of).map(Into::into) }
    }
}

/// Whether a record is what the first line of an object over several lines, or a whole table in one, looks like.
fn is_part_of_an_object(why: &BadRow) -> bool {
    matches!(why.reason, SkipReason::BrokenJson | SkipReason::TooLong)
}

/// What a value means in a column of this name.
pub(crate) fn content_of(value: Value, column: &str) -> Result<Content<'static>, BadRow> {
    let kind = Kind::of(column);
    let wrong = |found: &str| BadRow::wrong_type(column, found, kind.expected());
    match (kind, value) {
        (Kind::Text, Value::String(text)) => Ok(Content::Text(text.into())),
        (Kind::TokenIds, Value::Array(ids)) => {
            let id = |v: &Value| v.as_u64().and_then(|id| u32::try_from(id).ok()).map(TokenId);
            let found = || wrong("a list of something else");
            ids.iter().map(id).collect::<Option<_>>().map(Content::TokenIds).ok_or_else(found)
        }
        (Kind::Chat, Value::Array(messages)) => {
            let found = || wrong("a list of something else");
            messages.into_iter().map(message).collect::<Option<_>>().map(Content::Chat).ok_or_else(found)
        }
        (_, other) => Err(wrong(name_of(&other))),
    }
}

fn message(value: Value) -> Option<Message> {
    let Value::Object(fields) = value else { return None };
    Message::from_fields(fields)
}

/// A label is a short string, a number or a boolean.
fn label_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() && text.len() <= LABEL_BYTES => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(yes) => Some(yes.to_string()),
        _ => None,
    }
}

fn name_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
