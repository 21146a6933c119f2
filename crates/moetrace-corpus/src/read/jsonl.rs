//! JSON objects: one per line, or the elements of an array.

use std::io::{self, BufRead};
use std::path::Path;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use serde_json::error::Category;

use super::columns::{self, ChosenColumns, Kind, LABEL_BYTES};
use super::json_array::Elements;
use super::lines::{Line, Lines};
use super::open::TextFile;
use super::{BadRow, Content, Row, RowSink, Wanted};
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
    chosen: Option<ChosenColumns>,
    /// The column asked for is not in the first object; an error unless a later one has it.
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
            let row = match self.picked(&record)? {
                Ok(picked) => self.row(record.number, picked),
                Err(_) if first && self.first_must_be_whole => {
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
            Some(error) => Err(error),
            None => Ok(self.chosen.take()),
        }
    }

    /// The two fields that matter, or why the record has none; the first object decides on the columns.
    fn picked(&mut self, record: &Line<'_>) -> Result<Result<Picked, BadRow>, CorpusError> {
        let Some(bytes) = record.bytes else {
            return Ok(Err(BadRow::too_long(self.wanted.record_bytes())));
        };
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(e) => return Ok(Err(BadRow::invalid_utf8(e))),
        };
        if self.chosen.is_none() {
            match parse(text, Names) {
                Ok(names) => self.choose(&names)?,
                Err(why) => return Ok(Err(why)),
            }
        }
        Ok(match &self.chosen {
            Some(chosen) => parse(text, Pick(chosen)),
            None => Err(BadRow::missing("of a known name")),
        })
    }

    fn choose(&mut self, names: &[String]) -> Result<(), CorpusError> {
        self.chosen =
            Some(match (columns::choose(self.path, names, self.wanted.column), self.wanted.column) {
                (Ok(chosen), _) => chosen,
                (Err(error), Some(asked)) => {
                    self.absent = Some(error);
                    let label = columns::label_among(names, asked).map(str::to_owned);
                    ChosenColumns { text: asked.to_owned(), label }
                }
                (Err(error), None) => return Err(error),
            });
        Ok(())
    }

    fn row(&mut self, line: u64, picked: Picked) -> Row<'static> {
        let column = self.chosen.as_ref().map_or("", |c| c.text.as_str());
        let content = match picked.text {
            None => Err(BadRow::missing(column)),
            Some(value) => {
                self.absent = None;
                content_of(value, column)
            }
        };
        Row { line, content, label: picked.label.as_ref().and_then(label_of).map(Into::into) }
    }
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
            messages.iter().map(message).collect::<Option<_>>().map(Content::Chat).ok_or_else(found)
        }
        (_, other) => Err(wrong(name_of(&other))),
    }
}

fn message(value: &Value) -> Option<Message> {
    let field = |name| Some(value.get(name)?.as_str()?.to_owned());
    Some(Message { role: field("role")?, content: field("content")? })
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

fn parse<T>(text: &str, seed: impl for<'de> DeserializeSeed<'de, Value = T>) -> Result<T, BadRow> {
    let mut json = serde_json::Deserializer::from_str(text);
    let parsed = seed.deserialize(&mut json).and_then(|value| json.end().map(|()| value));
    parsed.map_err(|e| {
        let is_no_object = e.classify() == Category::Data;
        BadRow::new(if is_no_object { SkipReason::WrongType } else { SkipReason::BrokenJson }, e)
    })
}

/// The names of an object's fields.
struct Names;

impl<'de> DeserializeSeed<'de> for Names {
    type Value = Vec<String>;
    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Names {
    type Value = Vec<String>;
    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut names = Vec::new();
        while let Some((name, _)) = map.next_entry::<String, IgnoredAny>()? {
            names.push(name);
        }
        Ok(names)
    }
}

/// The text and label fields of an object; the others are passed over without being kept.
struct Pick<'c>(&'c ChosenColumns);

#[derive(Default)]
struct Picked {
    text: Option<Value>,
    label: Option<Value>,
}

impl<'de> DeserializeSeed<'de> for Pick<'_> {
    type Value = Picked;
    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> Result<Picked, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Pick<'_> {
    type Value = Picked;
    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Picked, A::Error> {
        let mut picked = Picked::default();
        while let Some(field) = map.next_key_seed(FieldOf(self.0))? {
            match field {
                Field::Text => picked.text = Some(map.next_value()?),
                Field::Label => picked.label = Some(map.next_value()?),
                Field::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(picked)
    }
}

enum Field {
    Text,
    Label,
    Other,
}

struct FieldOf<'c>(&'c ChosenColumns);

impl<'de> DeserializeSeed<'de> for FieldOf<'_> {
    type Value = Field;
    fn deserialize<D: serde::Deserializer<'de>>(self, key: D) -> Result<Field, D::Error> {
        key.deserialize_str(self)
    }
}

impl Visitor<'_> for FieldOf<'_> {
    type Value = Field;
    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a field name")
    }
    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Field, E> {
        if name == self.0.text {
            Ok(Field::Text)
        } else if self.0.label.as_deref() == Some(name) {
            Ok(Field::Label)
        } else {
            Ok(Field::Other)
        }
    }
}
