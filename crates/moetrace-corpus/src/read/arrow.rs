//! Arrow IPC, both the file and the stream form (what `save_to_disk` of datasets writes), by record batch.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;

use arrow::datatypes::Schema;

use super::arrow_messages::Messages;
use super::classes::ClassNames;
use super::columnar::{self, Table};
use super::columns::{self, ChosenColumns};
use super::foreign::{check_columns, guarded};
use super::{FileEnd, RowSink, Wanted};
use crate::CorpusError;

/// How a file of the first Feather version begins, which is no Arrow IPC.
const FEATHER_V1: &[u8; 4] = b"FEA1";

/// The format lets a stream end so, and some writers do; but so ends one whose writer died.
const NO_MARK: &str = "it ends without the mark that ends a stream; if its writer died, rows are missing";

pub(crate) fn read(path: &Path, wanted: Wanted<'_>, sink: &mut RowSink<'_>) -> Result<FileEnd, CorpusError> {
    let mut file = File::open(path).map_err(|e| CorpusError::io("open", path, e))?;
    let size = file.metadata().map_err(|e| CorpusError::io("open", path, e))?.len();
    if size == 0 {
        return Ok(FileEnd::from(None));
    }
    let magic = head(&mut file).map_err(|e| CorpusError::io("read", path, e))?;
    if magic == *FEATHER_V1 {
        return Err(CorpusError::FeatherV1 { path: path.to_owned() });
    }
    let messages = guarded(path, || Messages::open(file, size))?;
    let (chosen, projection) = choose(path, messages.schema(), wanted)?;
    let classes = ClassNames::of(&messages.schema().metadata, chosen.label.as_deref());
    let table = Table { path, chosen: &chosen, classes };
    let mut messages = messages.with_projection(projection);
    let mut seen = 0;
    while let Some(batch) = guarded(path, || messages.next_batch())? {
        if columnar::emit(&table, &batch, seen, sink)?.is_break() {
            break;
        }
        seen += batch.num_rows() as u64;
    }
    let note = messages.ended_without_mark().then_some(NO_MARK);
    Ok(FileEnd { columns: Some(chosen), note })
}

/// The first four bytes, zeros behind the end; the reader stands at the start again.
fn head(file: &mut File) -> std::io::Result<[u8; 4]> {
    let mut head = Vec::new();
    file.take(4).read_to_end(&mut head)?;
    file.rewind()?;
    head.resize(4, 0);
    Ok(head.first_chunk().copied().unwrap_or_default())
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
