//! Arrow IPC, both the file and the stream form (what `save_to_disk` of datasets writes), by record batch.

use std::fs::File;
use std::path::Path;

use arrow::datatypes::Schema;

use super::arrow_messages::Messages;
use super::columnar;
use super::columns::{self, ChosenColumns};
use super::foreign::{check_columns, guarded};
use super::{RowSink, Wanted};
use crate::CorpusError;

pub(crate) fn read(
    path: &Path,
    wanted: Wanted<'_>,
    sink: &mut RowSink<'_>,
) -> Result<Option<ChosenColumns>, CorpusError> {
    let file = File::open(path).map_err(|e| CorpusError::io("open", path, e))?;
    let size = file.metadata().map_err(|e| CorpusError::io("open", path, e))?.len();
    if size == 0 {
        return Ok(None);
    }
    let messages = guarded(path, || Messages::open(file, size))?;
    let (chosen, projection) = choose(path, messages.schema(), wanted)?;
    let mut messages = messages.with_projection(projection);
    let mut seen = 0;
    while let Some(batch) = guarded(path, || messages.next_batch())? {
        if columnar::emit(path, &batch, &chosen, seen, sink)?.is_break() {
            break;
        }
        seen += batch.num_rows() as u64;
    }
    Ok(Some(chosen))
}

fn choose(
    path: &Path,
    schema: &Schema,
    wanted: Wanted<'_>,
) -> Result<(ChosenColumns, Vec<usize>), CorpusError> {
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    check_columns(path, names.len())?;
    let chosen = columns::choose(path, &names, wanted.column)?;
    let read = |name: &str| name == chosen.text || Some(name) == chosen.label.as_deref();
    let projection = (0..names.len()).filter(|&i| read(names[i])).collect();
    Ok((chosen, projection))
}
