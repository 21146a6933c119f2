//! Arrow IPC, both the file and the stream form (what `save_to_disk` of datasets writes), by record batch.
//!
//! The reader allocates whatever length a message claims, so all lengths are held against the file first.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::reader::{FileReader, StreamReader, read_footer_length};
use arrow::ipc::{Message, root_as_footer, root_as_message};

use super::columnar;
use super::columns::{self, ChosenColumns};
use super::foreign::{check_columns, guarded};
use super::{RowSink, Wanted};
use crate::CorpusError;

const FILE_MAGIC: &[u8] = b"ARROW1";

/// Larger buffers are refused: no batch of texts that can be handled comes near.
const BUFFER_BYTES: i64 = 1 << 31;

pub(crate) fn read(
    path: &Path,
    wanted: Wanted<'_>,
    sink: &mut RowSink<'_>,
) -> Result<Option<ChosenColumns>, CorpusError> {
    let open = || File::open(path).map_err(|e| CorpusError::io("open", path, e));
    let mut file = BufReader::new(open()?);
    let mut magic = Vec::new();
    file.by_ref()
        .take(FILE_MAGIC.len() as u64)
        .read_to_end(&mut magic)
        .map_err(|e| CorpusError::io("read", path, e))?;
    if magic.is_empty() {
        return Ok(None);
    }
    let is_file = magic == FILE_MAGIC;
    guarded(path, || if is_file { check_file(&mut file) } else { check_stream(&mut file) })?;
    file = BufReader::new(open()?);
    if is_file {
        let schema = guarded(path, || FileReader::try_new(&mut file, None))?.schema();
        let (chosen, projection) = choose(path, &schema, wanted)?;
        file.rewind().map_err(|e| CorpusError::io("read", path, e))?;
        let mut reader = guarded(path, || FileReader::try_new(file, Some(projection)))?;
        batches(path, &chosen, sink, || reader.next().transpose())?;
        Ok(Some(chosen))
    } else {
        let schema = guarded(path, || StreamReader::try_new(&mut file, None))?.schema();
        let (chosen, projection) = choose(path, &schema, wanted)?;
        file.rewind().map_err(|e| CorpusError::io("read", path, e))?;
        let mut reader = guarded(path, || StreamReader::try_new(file, Some(projection)))?;
        batches(path, &chosen, sink, || reader.next().transpose())?;
        Ok(Some(chosen))
    }
}

fn choose(
    path: &Path,
    schema: &SchemaRef,
    wanted: Wanted<'_>,
) -> Result<(ChosenColumns, Vec<usize>), CorpusError> {
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    check_columns(path, names.len())?;
    let chosen = columns::choose(path, &names, wanted.column)?;
    let read = |name: &str| name == chosen.text || Some(name) == chosen.label.as_deref();
    let projection = (0..names.len()).filter(|&i| read(names[i])).collect();
    Ok((chosen, projection))
}

fn batches(
    path: &Path,
    chosen: &ChosenColumns,
    sink: &mut RowSink<'_>,
    mut next: impl FnMut() -> Result<Option<RecordBatch>, ArrowError>,
) -> Result<(), CorpusError> {
    let mut seen = 0;
    while let Some(batch) = guarded(path, &mut next)? {
        if columnar::emit(path, &batch, chosen, seen, sink)?.is_break() {
            break;
        }
        seen += batch.num_rows() as u64;
    }
    Ok(())
}

/// Holds every block of the footer against the file.
fn check_file(file: &mut BufReader<File>) -> Result<(), String> {
    let size = file.seek(SeekFrom::End(0)).map_err(|e| e.to_string())?;
    let tail_at = size.checked_sub(10).ok_or("it is too short for a footer")?;
    let mut tail = [0; 10];
    read_at(file, tail_at, &mut tail)?;
    let length = read_footer_length(tail).map_err(|e| e.to_string())? as u64;
    let footer_at = tail_at.checked_sub(length).ok_or("its footer is longer than the file")?;
    let mut footer = vec![0; length as usize];
    read_at(file, footer_at, &mut footer)?;
    let footer = root_as_footer(&footer).map_err(|e| e.to_string())?;
    let blocks =
        footer.dictionaries().into_iter().flatten().chain(footer.recordBatches().into_iter().flatten());
    for block in blocks {
        let at = u64::try_from(block.offset()).map_err(|e| e.to_string())?;
        let metadata = u64::try_from(block.metaDataLength()).map_err(|e| e.to_string())?;
        let body = u64::try_from(block.bodyLength()).map_err(|e| e.to_string())?;
        let end = at.checked_add(metadata).and_then(|end| end.checked_add(body));
        if end.is_none_or(|end| end > size) {
            return Err(format!(
                "a block at {at} of {metadata} + {body} bytes lies outside its {size} bytes"
            ));
        }
        file.seek(SeekFrom::Start(at)).map_err(|e| e.to_string())?;
        check_message(file, size)?;
    }
    Ok(())
}

/// Holds every message of the stream against the file. The format lets a stream end without its end mark, but
/// so ends one whose writer died, and its missing rows would go unnoticed.
fn check_stream(file: &mut BufReader<File>) -> Result<(), String> {
    let size = file.seek(SeekFrom::End(0)).map_err(|e| e.to_string())?;
    let mut at = 0;
    while at < size {
        file.seek(SeekFrom::Start(at)).map_err(|e| e.to_string())?;
        match check_message(file, size)? {
            Some(end) => at = end,
            None => return Ok(()),
        }
    }
    Err(format!("its {size} bytes end without the mark that ends a stream"))
}

/// Checks the message at the reader's place; answers where it ends, or none at the end of the stream.
fn check_message(file: &mut BufReader<File>, size: u64) -> Result<Option<u64>, String> {
    let mut word = [0; 4];
    file.read_exact(&mut word).map_err(|e| e.to_string())?;
    // Since format version 0.15 a continuation mark stands before the length.
    if word == [0xFF; 4] {
        file.read_exact(&mut word).map_err(|e| e.to_string())?;
    }
    let metadata = u64::try_from(i32::from_le_bytes(word)).map_err(|e| e.to_string())?;
    if metadata == 0 {
        return Ok(None);
    }
    let at = file.stream_position().map_err(|e| e.to_string())?;
    let body_at = at.checked_add(metadata).filter(|&end| end <= size);
    let body_at =
        body_at.ok_or_else(|| format!("a message of {metadata} bytes lies outside its {size} bytes"))?;
    let mut bytes = vec![0; metadata as usize];
    file.read_exact(&mut bytes).map_err(|e| e.to_string())?;
    let message = root_as_message(&bytes).map_err(|e| e.to_string())?;
    let body = u64::try_from(message.bodyLength()).map_err(|e| e.to_string())?;
    let end = body_at.checked_add(body).filter(|&end| end <= size);
    let end = end.ok_or_else(|| format!("a batch of {body} bytes lies outside its {size} bytes"))?;
    check_compressed(file, &message, body_at, end)?;
    Ok(Some(end))
}

/// A compressed buffer begins with the length it will have, which the reader allocates.
fn check_compressed(
    file: &mut BufReader<File>,
    message: &Message<'_>,
    at: u64,
    end: u64,
) -> Result<(), String> {
    let batch = message
        .header_as_record_batch()
        .or_else(|| message.header_as_dictionary_batch().and_then(|dictionary| dictionary.data()));
    let Some(batch) = batch.filter(|batch| batch.compression().is_some()) else { return Ok(()) };
    for buffer in batch.buffers().into_iter().flatten().filter(|buffer| buffer.length() >= 8) {
        let offset = u64::try_from(buffer.offset()).map_err(|e| e.to_string())?;
        let place = at.checked_add(offset).filter(|place| place.saturating_add(8) <= end);
        let place = place.ok_or_else(|| format!("a buffer at {offset} lies outside its batch"))?;
        let mut word = [0; 8];
        read_at(file, place, &mut word)?;
        let length = i64::from_le_bytes(word);
        if length > BUFFER_BYTES {
            return Err(format!("a buffer claims {length} bytes, expected at most {BUFFER_BYTES}"));
        }
    }
    Ok(())
}

fn read_at(file: &mut BufReader<File>, at: u64, into: &mut [u8]) -> Result<(), String> {
    file.seek(SeekFrom::Start(at)).and_then(|_| file.read_exact(into)).map_err(|e| e.to_string())
}
