//! Record batches of Arrow and Parquet files into rows.

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::path::Path;

use arrow::array::{Array, ArrayRef, AsArray, LargeStringArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use arrow::error::ArrowError;
use moetrace_routing::TokenId;
use serde_json::Value;

use super::classes::ClassNames;
use super::columns::{ChosenColumns, Kind, LABEL_BYTES};
use super::foreign::guarded;
use super::structures::json_values;
use super::{BadRow, Content, Row, RowSink};
use crate::{CorpusError, Message};

/// Rows that are converted at once; few, because each may be a megabyte.
pub(crate) const ROWS: usize = 256;

/// What is known of a file before its rows are read.
pub(crate) struct Table<'a> {
    pub(crate) path: &'a Path,
    pub(crate) chosen: &'a ChosenColumns,
    pub(crate) classes: ClassNames,
}

/// Hands the rows of `batch` to `sink`; the first is row `first` of its file, from 0.
pub(crate) fn emit(
    table: &Table<'_>,
    batch: &RecordBatch,
    first: u64,
    sink: &mut RowSink<'_>,
) -> Result<ControlFlow<()>, CorpusError> {
    let Table { path, chosen, classes } = table;
    for start in (0..batch.num_rows()).step_by(ROWS) {
        let rows = ROWS.min(batch.num_rows() - start);
        // Converted before the sink is called, so that a panic that is caught is the reader's own.
        let (contents, labels) = guarded(path, || convert(&batch.slice(start, rows), chosen))?;
        for (i, content) in contents.into_iter().enumerate() {
            let line = first + (start + i) as u64 + 1;
            let label =
                labels.as_ref().and_then(|labels| label_at(labels, i)).map(|label| classes.name(label));
            if sink(Row { line, content, label })?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
    }
    Ok(ControlFlow::Continue(()))
}

type Contents = Vec<Result<Content<'static>, BadRow>>;

fn convert(
    batch: &RecordBatch,
    chosen: &ChosenColumns,
) -> Result<(Contents, Option<LargeStringArray>), ArrowError> {
    let array = batch
        .column_by_name(&chosen.text)
        .ok_or_else(|| ArrowError::SchemaError(format!("no column {}", chosen.text)))?;
    let contents = match Kind::of(&chosen.text) {
        Kind::Text => texts(array, &chosen.text)?,
        kind @ (Kind::TokenIds | Kind::Chat) => {
            (0..array.len()).map(|i| list_content(array, i, kind, &chosen.text)).collect::<Result<_, _>>()?
        }
    };
    let label = chosen.label.as_deref().and_then(|name| batch.column_by_name(name));
    Ok((contents, label.and_then(scalar_strings)))
}

fn texts(array: &ArrayRef, column: &str) -> Result<Contents, ArrowError> {
    let wrong = |found: &dyn std::fmt::Display| BadRow::wrong_type(column, found, Kind::Text.expected());
    if !is_string(array.data_type()) {
        return Ok((0..array.len()).map(|_| Err(wrong(array.data_type()))).collect());
    }
    let strings = cast(array, &DataType::LargeUtf8)?;
    let owned = |text: Option<&str>| match text {
        Some(text) => Ok(Content::Text(Cow::Owned(text.to_owned()))),
        None => Err(wrong(&"null")),
    };
    Ok(strings.as_string::<i64>().iter().map(owned).collect())
}

pub(crate) fn is_string(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_string(values),
        DataType::RunEndEncoded(_, values) => is_string(values.data_type()),
        _ => false,
    }
}

/// Labels are scalars; lists and structures in a column of that name are something else.
fn scalar_strings(array: &ArrayRef) -> Option<LargeStringArray> {
    let data_type = array.data_type();
    let scalar = is_string(data_type) || data_type.is_numeric() || *data_type == DataType::Boolean;
    let strings = scalar.then(|| cast(array, &DataType::LargeUtf8).ok()).flatten()?;
    Some(strings.as_string::<i64>().clone())
}

fn label_at(labels: &LargeStringArray, i: usize) -> Option<Cow<'_, str>> {
    let label = labels.is_valid(i).then(|| labels.value(i))?;
    (!label.is_empty() && label.len() <= LABEL_BYTES).then_some(Cow::Borrowed(label))
}

/// One row of a list column; the outer error is the file's, the inner the row's.
fn list_content(
    array: &ArrayRef,
    row: usize,
    kind: Kind,
    column: &str,
) -> Result<Result<Content<'static>, BadRow>, ArrowError> {
    let wrong = |found: &dyn std::fmt::Display| Ok(Err(BadRow::wrong_type(column, found, kind.expected())));
    if array.is_null(row) {
        return wrong(&"null");
    }
    let values = match array.data_type() {
        DataType::List(_) => array.as_list::<i32>().value(row),
        DataType::LargeList(_) => array.as_list::<i64>().value(row),
        DataType::FixedSizeList(..) => array.as_fixed_size_list().value(row),
        other => return wrong(other),
    };
    let content = match kind {
        Kind::Chat => messages(&values)?.map(Content::Chat),
        _ => token_ids(&values)?.map(Content::TokenIds),
    };
    match content {
        Some(content) => Ok(Ok(content)),
        None => wrong(array.data_type()),
    }
}

fn token_ids(values: &ArrayRef) -> Result<Option<Vec<TokenId>>, ArrowError> {
    if !values.data_type().is_integer() {
        return Ok(None);
    }
    let ids = cast(values, &DataType::Int64)?;
    let id = |id: Option<i64>| u32::try_from(id?).ok().map(TokenId);
    Ok(ids.as_primitive::<Int64Type>().iter().map(id).collect())
}

fn messages(values: &ArrayRef) -> Result<Option<Vec<Message>>, ArrowError> {
    let message = |value| match value {
        Value::Object(fields) => Message::from_fields(fields),
        _ => None,
    };
    Ok(json_values(values, 0)?.into_iter().map(message).collect())
}
