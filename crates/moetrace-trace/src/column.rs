//! Values out of record batches, refused where a value is missing.

use std::path::Path;

use arrow::array::{
    Array, ArrowPrimitiveType, AsArray, BooleanArray, FixedSizeListArray, PrimitiveArray, RecordBatch,
    StringArray,
};

use crate::TraceError;

/// One record batch of a file, with the row it begins at.
pub(crate) struct Part<'a> {
    pub(crate) file: &'a Path,
    pub(crate) row: u64,
    pub(crate) batch: &'a RecordBatch,
}

impl<'a> Part<'a> {
    fn array(&self, name: &str) -> Result<&'a dyn Array, TraceError> {
        let found = self.batch.column_by_name(name);
        found.map(AsRef::as_ref).ok_or_else(|| self.mismatch(name, "missing", "present"))
    }

    fn mismatch(&self, name: &str, found: &str, expected: &str) -> TraceError {
        TraceError::Column {
            file: self.file.to_owned(),
            column: name.to_owned(),
            found: found.to_owned(),
            expected: expected.to_owned(),
        }
    }

    fn whole<'b>(&self, name: &str, array: &'b dyn Array) -> Result<&'b dyn Array, TraceError> {
        if array.null_count() == 0 {
            return Ok(array);
        }
        Err(TraceError::Null { file: self.file.to_owned(), column: name.to_owned(), row: self.row })
    }

    /// A column of numbers that may miss some.
    pub(crate) fn nullable<T: ArrowPrimitiveType>(
        &self,
        name: &str,
    ) -> Result<&'a PrimitiveArray<T>, TraceError> {
        let array = self.array(name)?;
        let typed = array.as_primitive_opt::<T>();
        typed.ok_or_else(|| self.mismatch(name, &array.data_type().to_string(), &T::DATA_TYPE.to_string()))
    }

    /// A column of numbers, `[rows]`.
    pub(crate) fn numbers<T: ArrowPrimitiveType>(&self, name: &str) -> Result<&'a [T::Native], TraceError> {
        let typed = self.nullable::<T>(name)?;
        self.whole(name, typed)?;
        Ok(typed.values())
    }

    /// A column of lists of `width` numbers, `[rows, width]`.
    pub(crate) fn lists<T: ArrowPrimitiveType>(
        &self,
        name: &str,
        width: usize,
    ) -> Result<&'a [T::Native], TraceError> {
        let array = self.whole(name, self.array(name)?)?;
        let expected = || format!("lists of {width} {}", T::DATA_TYPE);
        let bad = || self.mismatch(name, &array.data_type().to_string(), &expected());
        let lists: &FixedSizeListArray = array.as_fixed_size_list_opt().ok_or_else(bad)?;
        let values = lists.values().as_primitive_opt::<T>().ok_or_else(bad)?;
        self.whole(name, values)?;
        let start = lists.value_offset(0) as usize;
        values.values().get(start..start + lists.len() * width).ok_or_else(bad)
    }

    /// A column of texts that may miss some.
    pub(crate) fn texts(&self, name: &str) -> Result<&'a StringArray, TraceError> {
        let array = self.array(name)?;
        array.as_string_opt().ok_or_else(|| self.mismatch(name, &array.data_type().to_string(), "text"))
    }

    /// A column of texts.
    pub(crate) fn whole_texts(&self, name: &str) -> Result<&'a StringArray, TraceError> {
        let texts = self.texts(name)?;
        self.whole(name, texts)?;
        Ok(texts)
    }

    /// A column of truth values.
    pub(crate) fn flags(&self, name: &str) -> Result<&'a BooleanArray, TraceError> {
        let array = self.whole(name, self.array(name)?)?;
        array.as_boolean_opt().ok_or_else(|| self.mismatch(name, &array.data_type().to_string(), "Boolean"))
    }
}
