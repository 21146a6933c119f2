//! Fields of a `config.json`, each checked against its range before anything is computed from it.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::ModelError;

/// The JSON object of one file.
pub(super) struct Fields<'a> {
    pub(super) file: &'a str,
    pub(super) object: &'a Map<String, Value>,
}

impl Fields<'_> {
    /// The field, with `null` counted as absent, as transformers does.
    pub(super) fn get(&self, field: &str) -> Option<&Value> {
        self.object.get(field).filter(|value| !value.is_null())
    }

    pub(super) fn whole_or(
        &self,
        field: &'static str,
        default: usize,
        range: RangeInclusive<usize>,
    ) -> Result<usize, ModelError> {
        let Some(value) = self.get(field) else { return Ok(default) };
        let found = value.as_u64().and_then(|v| usize::try_from(v).ok());
        found
            .filter(|v| range.contains(v))
            .ok_or_else(|| self.refused(field, value, format!("{} to {}", range.start(), range.end())))
    }

    pub(super) fn whole(
        &self,
        field: &'static str,
        range: RangeInclusive<usize>,
    ) -> Result<usize, ModelError> {
        if self.get(field).is_none() {
            let expected = format!("{} to {}", range.start(), range.end());
            return Err(ModelError::MissingField { file: self.file.to_owned(), field, expected });
        }
        self.whole_or(field, 0, range)
    }

    pub(super) fn number_or(
        &self,
        field: &'static str,
        default: f64,
        range: RangeInclusive<f64>,
    ) -> Result<f64, ModelError> {
        let Some(value) = self.get(field) else { return Ok(default) };
        value
            .as_f64()
            .filter(|v| range.contains(v))
            .ok_or_else(|| self.refused(field, value, format!("{:e} to {:e}", range.start(), range.end())))
    }

    pub(super) fn flag_or(&self, field: &'static str, default: bool) -> Result<bool, ModelError> {
        let Some(value) = self.get(field) else { return Ok(default) };
        value.as_bool().ok_or_else(|| self.refused(field, value, "true or false".to_owned()))
    }

    /// Ascending layer numbers below `layers`; an absent list is empty.
    pub(super) fn layer_list(&self, field: &'static str, layers: usize) -> Result<Vec<usize>, ModelError> {
        let Some(value) = self.get(field) else { return Ok(Vec::new()) };
        let refused = || self.refused(field, value, format!("a list of layer numbers below {layers}"));
        let mut list = Vec::new();
        for item in value.as_array().ok_or_else(refused)? {
            let layer = item.as_u64().and_then(|v| usize::try_from(v).ok()).filter(|&l| l < layers);
            list.push(layer.ok_or_else(refused)?);
        }
        list.sort_unstable();
        list.dedup();
        Ok(list)
    }

    /// Refuses a feature that this crate does not compute.
    pub(super) fn unsupported(
        &self,
        field: &'static str,
        found: &Value,
        expected: &'static str,
    ) -> ModelError {
        ModelError::Unsupported { file: self.file.to_owned(), field, found: shortened(found), expected }
    }

    fn refused(&self, field: &'static str, found: &Value, expected: String) -> ModelError {
        ModelError::FieldRange { file: self.file.to_owned(), field, found: shortened(found), expected }
    }
}

/// A JSON value for a message: at most 80 characters of it, since the file is not ours.
pub(super) fn shortened(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
