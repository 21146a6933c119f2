//! Which format a file has, and text files opened through their compression.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use crate::CorpusError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    JsonLines,
    /// An array of objects, or JSON lines under another name.
    Json,
    Csv {
        delimiter: u8,
    },
    Text,
    Parquet,
    Arrow,
}

const COMPRESSED: [&str; 3] = [".gz", ".zst", ".zstd"];

/// Suffixes of texts, which may be compressed as a whole.
const TEXT_FORMATS: [(&str, Format); 7] = [
    (".jsonl", Format::JsonLines),
    (".ndjson", Format::JsonLines),
    (".json", Format::Json),
    (".csv", Format::Csv { delimiter: b',' }),
    (".tsv", Format::Csv { delimiter: b'\t' }),
    (".txt", Format::Text),
    (".text", Format::Text),
];

/// Suffixes of formats with a compression of their own.
const BINARY_FORMATS: [(&str, Format); 6] = [
    (".parquet", Format::Parquet),
    (".pq", Format::Parquet),
    (".arrow", Format::Arrow),
    (".arrows", Format::Arrow),
    (".feather", Format::Arrow),
    (".ipc", Format::Arrow),
];

/// The format that a file name promises, and the suffix that does.
pub(crate) fn named_format(file_name: &str) -> Option<(Format, &str)> {
    let lower = file_name.to_ascii_lowercase();
    let compression = COMPRESSED.iter().find(|suffix| lower.ends_with(**suffix));
    let plain = &lower[..lower.len() - compression.map_or(0, |suffix| suffix.len())];
    let binary = BINARY_FORMATS.iter().filter(|_| compression.is_none());
    let (suffix, format) = TEXT_FORMATS
        .iter()
        .chain(binary)
        .find(|(suffix, _)| plain.len() > suffix.len() && plain.ends_with(suffix))?;
    Some((*format, &file_name[plain.len() - suffix.len()..]))
}

/// The part of a file name that names its format and compression, or nothing.
pub(crate) fn known_suffix(file_name: &str) -> &str {
    named_format(file_name).map_or("", |(_, suffix)| suffix)
}

/// The format of a file by its name, else by its first bytes.
pub(crate) fn format_of(path: &Path) -> Result<Format, CorpusError> {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    if let Some((format, _)) = named_format(&name) {
        return Ok(format);
    }
    let mut head = Vec::new();
    File::open(path)
        .and_then(|file| file.take(8).read_to_end(&mut head))
        .map_err(|e| CorpusError::io("read", path, e))?;
    match head.as_slice() {
        [b'P', b'A', b'R', b'1', ..] => Ok(Format::Parquet),
        [b'A', b'R', b'R', b'O', b'W', b'1', ..] | [0xFF, 0xFF, 0xFF, 0xFF, ..] => Ok(Format::Arrow),
        _ => match TextFile::open(path)?.first_byte()? {
            Some(b'{' | b'[') => Ok(Format::Json),
            _ => Err(CorpusError::UnknownFormat { path: path.to_owned() }),
        },
    }
}

/// A text file, decompressed where its first bytes say so, without byte-order mark.
pub(crate) struct TextFile<'p> {
    pub(crate) reader: Box<dyn BufRead>,
    pub(crate) compressed: bool,
    path: &'p Path,
}

const BUFFER: usize = 1 << 17;

impl<'p> TextFile<'p> {
    pub(crate) fn open(path: &'p Path) -> Result<Self, CorpusError> {
        let io = |e| CorpusError::io("open", path, e);
        let mut file = BufReader::with_capacity(BUFFER, File::open(path).map_err(io)?);
        let head = file.fill_buf().map_err(|e| CorpusError::io("read", path, e))?;
        let (reader, compressed): (Box<dyn BufRead>, bool) = match head {
            [0x1F, 0x8B, ..] => (Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(file))), true),
            [0x28, 0xB5, 0x2F, 0xFD, ..] => {
                let decoder = zstd::Decoder::with_buffer(file).map_err(io)?;
                (Box::new(BufReader::with_capacity(BUFFER, decoder)), true)
            }
            _ => (Box::new(file), false),
        };
        let mut text = Self { reader, compressed, path };
        match text.peek()? {
            [0xEF, 0xBB, 0xBF, ..] => text.reader.consume(3),
            // Such a text is full of zero bytes, which UTF-8 allows: most of it would pass as samples.
            [0xFF, 0xFE, 0, 0, ..] | [0, 0, 0xFE, 0xFF, ..] => {
                return Err(CorpusError::Encoding { path: path.to_owned(), found: "UTF-32" });
            }
            [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] => {
                return Err(CorpusError::Encoding { path: path.to_owned(), found: "UTF-16" });
            }
            _ => {}
        }
        Ok(text)
    }

    /// What the buffer holds; empty only at the end.
    pub(crate) fn peek(&mut self) -> Result<&[u8], CorpusError> {
        let (path, compressed) = (self.path, self.compressed);
        self.reader.fill_buf().map_err(|e| super::damaged_or_io(path, compressed, e))
    }

    /// The first byte that is not whitespace, looked for in the first buffer.
    pub(crate) fn first_byte(&mut self) -> Result<Option<u8>, CorpusError> {
        Ok(self.peek()?.iter().copied().find(|b| !b.is_ascii_whitespace()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_name_the_format_and_only_texts_may_be_compressed() {
        assert_eq!(known_suffix("a.b.JSONL.gz"), ".JSONL.gz");
        assert_eq!(known_suffix("a.tsv.zstd"), ".tsv.zstd");
        assert_eq!(known_suffix("a.parquet"), ".parquet");
        for unknown in ["a.parquet.gz", "a.gz", "a.py", ".jsonl", "jsonl"] {
            assert_eq!(known_suffix(unknown), "", "{unknown}");
        }
    }
}
