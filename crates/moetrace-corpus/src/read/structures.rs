//! Nested Arrow values as JSON: what a chat template is given of a message.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, UInt64Type};
use arrow::error::ArrowError;
use serde_json::{Map, Value};

use super::columnar::is_string;

/// Deeper values are refused.
const DEPTH: usize = 32;

/// Every value of `array`: structures as objects in the order of their fields, nulls kept, and what JSON lacks (a
/// date, a decimal) as its text.
pub(crate) fn json_values(array: &ArrayRef, depth: usize) -> Result<Vec<Value>, ArrowError> {
    if depth > DEPTH {
        return Err(ArrowError::SchemaError(format!("values nested more than {DEPTH} deep")));
    }
    let mut values = match array.data_type() {
        DataType::Struct(_) => objects(array, depth)?,
        DataType::List(_) => lists(array, depth, |i| array.as_list::<i32>().value(i))?,
        DataType::LargeList(_) => lists(array, depth, |i| array.as_list::<i64>().value(i))?,
        DataType::FixedSizeList(..) => lists(array, depth, |i| array.as_fixed_size_list().value(i))?,
        _ => scalars(array)?,
    };
    let nulls = array.logical_nulls();
    for (i, value) in values.iter_mut().enumerate() {
        if nulls.as_ref().is_some_and(|nulls| nulls.is_null(i)) {
            *value = Value::Null;
        }
    }
    Ok(values)
}

fn objects(array: &ArrayRef, depth: usize) -> Result<Vec<Value>, ArrowError> {
    let structs = array.as_struct();
    let mut objects = vec![Map::new(); structs.len()];
    for (name, column) in structs.column_names().into_iter().zip(structs.columns()) {
        for (object, value) in objects.iter_mut().zip(json_values(column, depth + 1)?) {
            object.insert(name.to_owned(), value);
        }
    }
    Ok(objects.into_iter().map(Value::Object).collect())
}

fn lists(
    array: &ArrayRef,
    depth: usize,
    items: impl Fn(usize) -> ArrayRef,
) -> Result<Vec<Value>, ArrowError> {
    let list = |i| {
        if array.is_null(i) {
            return Ok(Value::Null);
        }
        json_values(&items(i), depth + 1).map(Value::Array)
    };
    (0..array.len()).map(list).collect()
}

fn scalars(array: &ArrayRef) -> Result<Vec<Value>, ArrowError> {
    let of = |kind| cast(array, &kind);
    Ok(match array.data_type() {
        DataType::Boolean => array.as_boolean().iter().map(Value::from).collect(),
        DataType::UInt64 => array.as_primitive::<UInt64Type>().iter().map(Value::from).collect(),
        kind if kind.is_integer() => {
            of(DataType::Int64)?.as_primitive::<Int64Type>().iter().map(Value::from).collect()
        }
        kind if kind.is_floating() => {
            of(DataType::Float64)?.as_primitive::<Float64Type>().iter().map(Value::from).collect()
        }
        DataType::Null => vec![Value::Null; array.len()],
        kind if is_string(kind) || !kind.is_nested() => {
            of(DataType::LargeUtf8)?.as_string::<i64>().iter().map(Value::from).collect()
        }
        kind => return Err(ArrowError::SchemaError(format!("a message holds {kind}"))),
    })
}
