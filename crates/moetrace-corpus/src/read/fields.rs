//! The names of a JSON object's fields, and the two of them that are read.

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use serde_json::error::Category;

use super::BadRow;
use super::columns::{self, ChosenColumns};
use crate::SkipReason;

/// One JSON object, and nothing behind it.
pub(super) fn parse<T>(text: &str, seed: impl for<'de> DeserializeSeed<'de, Value = T>) -> Result<T, BadRow> {
    let mut json = serde_json::Deserializer::from_str(text);
    let parsed = seed.deserialize(&mut json).and_then(|value| json.end().map(|()| value));
    parsed.map_err(|e| {
        let is_no_object = e.classify() == Category::Data;
        BadRow::new(if is_no_object { SkipReason::WrongType } else { SkipReason::BrokenJson }, e)
    })
}

/// The names of an object's fields.
pub(super) struct Names;

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
pub(super) struct Pick<'c>(pub(super) &'c ChosenColumns);

#[derive(Default)]
pub(super) struct Picked {
    pub(super) text: Option<Value>,
    pub(super) label: Option<Value>,
    /// Of an object that is the first to have a label column: the column, and its rank among the known ones.
    pub(super) label_found: Option<(usize, String)>,
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
                Field::KnownLabel(rank, name) => {
                    let value = map.next_value()?;
                    if picked.label_found.as_ref().is_none_or(|(found, _)| rank < *found) {
                        (picked.label, picked.label_found) = (Some(value), Some((rank, name)));
                    }
                }
                Field::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(picked)
    }
}

enum Field {
    Text,
    Label,
    /// No label column has been seen yet, and this is a name of one.
    KnownLabel(usize, String),
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
        } else if let Some(label) = &self.0.label {
            Ok(if label == name { Field::Label } else { Field::Other })
        } else {
            let rank = columns::label_rank(name);
            Ok(rank.map_or(Field::Other, |rank| Field::KnownLabel(rank, name.to_owned())))
        }
    }
}
