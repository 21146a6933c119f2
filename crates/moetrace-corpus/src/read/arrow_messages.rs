//! The messages of an Arrow IPC file or stream, decoded one at a time.
//!
//! arrow's own file and stream readers allocate whatever length a message claims, and an allocation that fails
//! ends the process. So messages are read here: every length is held against the file, and what a compressed
//! buffer will become against a limit, before arrow decodes the bytes.

use std::fmt::Display;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::ipc::convert::fb_to_schema;
use arrow::ipc::reader::{FileDecoder, read_footer_length};
use arrow::ipc::{Block, MessageHeader, root_as_footer, root_as_message};

const FILE_MAGIC: &[u8] = b"ARROW1";

/// Stands before a message's length since format version 0.15.
const CONTINUATION: [u8; 4] = [0xFF; 4];

/// Larger buffers are refused: no batch of texts that can be handled comes near.
const BUFFER_BYTES: i64 = 1 << 31;

/// A file or stream whose schema is known.
pub(crate) struct Messages {
    file: BufReader<File>,
    size: u64,
    schema: SchemaRef,
    decoder: FileDecoder,
    /// Record batches still to come, by the footer; none in a stream, where they follow one another.
    blocks: Option<std::vec::IntoIter<Block>>,
    ended_without_mark: bool,
}

impl Messages {
    /// Reads the schema, and of a file all dictionaries.
    pub(crate) fn open(file: File, size: u64) -> Result<Self, String> {
        let mut file = BufReader::new(file);
        let mut magic = [0; FILE_MAGIC.len()];
        file.read_exact(&mut magic).map_err(said)?;
        file.rewind().map_err(said)?;
        if magic == FILE_MAGIC { Self::open_file(file, size) } else { Self::open_stream(file, size) }
    }

    fn open_stream(mut file: BufReader<File>, size: u64) -> Result<Self, String> {
        let (_, bytes) = next_message(&mut file, size)?.ok_or("it ends before a schema")?;
        let message = root_as_message(metadata_of(&bytes)).map_err(said)?;
        let schema = message.header_as_schema().ok_or("its first message is no schema")?;
        let schema = Arc::new(fb_to_schema(schema));
        let decoder = FileDecoder::new(schema.clone(), message.version());
        Ok(Self { file, size, schema, decoder, blocks: None, ended_without_mark: false })
    }

    fn open_file(mut file: BufReader<File>, size: u64) -> Result<Self, String> {
        let tail_at = size.checked_sub(10).ok_or("it is too short for a footer")?;
        let mut tail = [0; 10];
        file.seek(SeekFrom::Start(tail_at)).and_then(|_| file.read_exact(&mut tail)).map_err(said)?;
        let length = read_footer_length(tail).map_err(said)? as u64;
        let footer_at = tail_at.checked_sub(length).ok_or("its footer is longer than the file")?;
        let mut footer = vec![0; length as usize];
        file.seek(SeekFrom::Start(footer_at)).and_then(|_| file.read_exact(&mut footer)).map_err(said)?;
        let footer = root_as_footer(&footer).map_err(said)?;
        let schema = Arc::new(fb_to_schema(footer.schema().ok_or("its footer has no schema")?));
        let mut decoder = FileDecoder::new(schema.clone(), footer.version());
        for block in footer.dictionaries().into_iter().flatten() {
            let bytes = read_block(&mut file, size, block)?;
            decoder.read_dictionary(block, &bytes).map_err(said)?;
        }
        let blocks: Vec<Block> = footer.recordBatches().into_iter().flatten().copied().collect();
        let blocks = Some(blocks.into_iter());
        Ok(Self { file, size, schema, decoder, blocks, ended_without_mark: false })
    }

    pub(crate) fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The same with only these columns decoded.
    pub(crate) fn with_projection(self, columns: Vec<usize>) -> Self {
        Self { decoder: self.decoder.with_projection(columns), ..self }
    }

    /// Whether a stream read to its end had no mark there.
    pub(crate) fn ended_without_mark(&self) -> bool {
        self.ended_without_mark
    }

    /// The next record batch, or none at the end.
    pub(crate) fn next_batch(&mut self) -> Result<Option<RecordBatch>, String> {
        if let Some(blocks) = &mut self.blocks {
            let Some(block) = blocks.next() else { return Ok(None) };
            let bytes = read_block(&mut self.file, self.size, &block)?;
            return self.decoder.read_record_batch(&block, &bytes).map_err(said);
        }
        loop {
            self.ended_without_mark = self.file.stream_position().map_err(said)? == self.size;
            if self.ended_without_mark {
                return Ok(None);
            }
            let Some((block, bytes)) = next_message(&mut self.file, self.size)? else { return Ok(None) };
            let message = root_as_message(metadata_of(&bytes)).map_err(said)?;
            if message.header_type() == MessageHeader::DictionaryBatch {
                self.decoder.read_dictionary(&block, &bytes).map_err(said)?;
            } else {
                return self.decoder.read_record_batch(&block, &bytes).map_err(said);
            }
        }
    }
}

fn said(error: impl Display) -> String {
    error.to_string()
}

/// The message at the reader's place with its body, or none at the mark that ends a stream.
fn next_message(file: &mut BufReader<File>, size: u64) -> Result<Option<(Block, Buffer)>, String> {
    let at = file.stream_position().map_err(said)?;
    let mut word = [0; 4];
    file.read_exact(&mut word).map_err(said)?;
    let prefix = if word == CONTINUATION { 8 } else { 4 };
    if word == CONTINUATION {
        file.read_exact(&mut word).map_err(said)?;
    }
    let length = i32::from_le_bytes(word);
    if length == 0 {
        return Ok(None);
    }
    let length = u64::try_from(length).map_err(said)?;
    let metadata = i32::try_from(prefix + length).map_err(said)?;
    // The body's length stands in the metadata, which are therefore read first.
    let head = read_checked(file, size, &Block::new(at as i64, metadata, 0))?;
    let body = root_as_message(metadata_of(&head)).map_err(said)?.bodyLength();
    let block = Block::new(at as i64, metadata, body);
    let bytes = read_block(file, size, &block)?;
    Ok(Some((block, bytes)))
}

/// A block's bytes, its compressed buffers held against the limit.
fn read_block(file: &mut BufReader<File>, size: u64, block: &Block) -> Result<Buffer, String> {
    let bytes = read_checked(file, size, block)?;
    let body = bytes.get(block.metaDataLength() as usize..).ok_or("a block is shorter than its metadata")?;
    check_compressed(metadata_of(&bytes), body)?;
    Ok(bytes)
}

/// A block's bytes, if they lie in the file.
fn read_checked(file: &mut BufReader<File>, size: u64, block: &Block) -> Result<Buffer, String> {
    let at = u64::try_from(block.offset()).map_err(said)?;
    let metadata = u64::try_from(block.metaDataLength()).map_err(said)?;
    let body = u64::try_from(block.bodyLength()).map_err(said)?;
    let length = metadata.saturating_add(body);
    if at.checked_add(length).is_none_or(|end| end > size) {
        return Err(format!("a block at {at} of {metadata} + {body} bytes lies outside its {size} bytes"));
    }
    let mut bytes = vec![0; length as usize];
    file.seek(SeekFrom::Start(at)).and_then(|_| file.read_exact(&mut bytes)).map_err(said)?;
    Ok(Buffer::from_vec(bytes))
}

/// A message's flatbuffer behind its length.
fn metadata_of(bytes: &[u8]) -> &[u8] {
    let prefix = if bytes.starts_with(&CONTINUATION) { 8 } else { 4 };
    bytes.get(prefix..).unwrap_or_default()
}

/// A compressed buffer begins with the length it will have, which arrow allocates.
fn check_compressed(metadata: &[u8], body: &[u8]) -> Result<(), String> {
    let message = root_as_message(metadata).map_err(said)?;
    let dictionary = || message.header_as_dictionary_batch().and_then(|dictionary| dictionary.data());
    let batch = message.header_as_record_batch().or_else(dictionary);
    let Some(batch) = batch.filter(|batch| batch.compression().is_some()) else { return Ok(()) };
    for buffer in batch.buffers().into_iter().flatten().filter(|buffer| buffer.length() > 0) {
        let offset = usize::try_from(buffer.offset()).map_err(said)?;
        let word = body.get(offset..).and_then(|from| from.first_chunk());
        let word = word.ok_or_else(|| format!("a buffer at {offset} lies outside its batch"))?;
        let length = i64::from_le_bytes(*word);
        if length > BUFFER_BYTES {
            return Err(format!("a buffer claims {length} bytes, expected at most {BUFFER_BYTES}"));
        }
    }
    Ok(())
}
