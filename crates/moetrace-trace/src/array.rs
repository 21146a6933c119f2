//! Plain vectors into Arrow arrays, without a copy.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, ArrowPrimitiveType, DictionaryArray, FixedSizeListArray, Float32Array, Int32Array,
    PrimitiveArray, StringArray,
};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::Int32Type;
use parquet::errors::ParquetError;

use crate::schema::list_item;

pub(crate) fn column<T: ArrowPrimitiveType>(values: Vec<T::Native>) -> ArrayRef {
    Arc::new(PrimitiveArray::<T>::new(ScalarBuffer::from(values), None))
}

/// Rows of `width` values.
pub(crate) fn list_column<T: ArrowPrimitiveType>(
    values: Vec<T::Native>,
    width: usize,
) -> Result<ArrayRef, ParquetError> {
    let values = PrimitiveArray::<T>::new(ScalarBuffer::from(values), None);
    let width = i32::try_from(width)?;
    let list = FixedSizeListArray::try_new(list_item(T::DATA_TYPE), width, Arc::new(values), None)?;
    Ok(Arc::new(list))
}

/// NaN becomes null: a value that was never computed.
pub(crate) fn nullable_column(values: &[f32]) -> ArrayRef {
    Arc::new(values.iter().map(|v| (!v.is_nan()).then_some(*v)).collect::<Float32Array>())
}

/// `rows` times the same text.
pub(crate) fn constant_text(text: &str, rows: usize) -> Result<ArrayRef, ParquetError> {
    let keys = Int32Array::from(vec![0; rows]);
    let values = Arc::new(StringArray::from(vec![text]));
    Ok(Arc::new(DictionaryArray::<Int32Type>::try_new(keys, values)?))
}
