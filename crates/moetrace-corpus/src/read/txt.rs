//! Plain text. Paragraphs between blank lines are samples, because books are wrapped at some width and a line
//! is no unit of meaning there; a file without a blank line in its first MiB is taken line by line, because it
//! then is a list of texts.

use std::path::Path;

use super::columns::ChosenColumns;
use super::lines::Lines;
use super::open::TextFile;
use super::{BadRow, Content, Row, RowSink, Wanted};
use crate::CorpusError;
use crate::error::ColumnNames;

/// Text files have one column of this name.
const COLUMN: &str = "text";

const LOOKED_THROUGH: usize = 1 << 20;

pub(crate) fn read(
    path: &Path,
    wanted: Wanted<'_>,
    sink: &mut RowSink<'_>,
) -> Result<Option<ChosenColumns>, CorpusError> {
    if let Some(column) = wanted.column.filter(|c| !c.eq_ignore_ascii_case(COLUMN)) {
        let columns = ColumnNames(vec![COLUMN.to_owned()]);
        return Err(CorpusError::MissingColumn { path: path.to_owned(), column: column.to_owned(), columns });
    }
    let by_paragraph = has_blank_line(path)?;
    let mut text = TextFile::open(path)?;
    let compressed = text.compressed;
    let mut lines = Lines::new(&mut text.reader, wanted.text_bytes);
    let mut paragraph = Paragraph::default();
    let mut any = false;
    loop {
        let line = lines.next().map_err(|e| super::damaged_or_io(path, compressed, e))?;
        let ends = match &line {
            None => true,
            Some(line) => !by_paragraph || line.bytes.is_some_and(is_blank),
        };
        if ends && paragraph.begins.is_some() {
            any = true;
            if sink(paragraph.take(wanted.text_bytes))?.is_break() {
                break;
            }
            paragraph.clear();
        }
        let Some(line) = line else { break };
        if !line.bytes.is_some_and(is_blank) {
            paragraph.add(line.number, line.bytes, wanted.text_bytes);
        }
    }
    Ok(any.then(|| ChosenColumns { text: COLUMN.to_owned(), label: None }))
}

fn is_blank(line: &[u8]) -> bool {
    line.iter().all(u8::is_ascii_whitespace)
}

/// Whether a blank line stands between two others in the first MiB.
fn has_blank_line(path: &Path) -> Result<bool, CorpusError> {
    let text = TextFile::open(path)?;
    let compressed = text.compressed;
    let mut lines = Lines::new(std::io::Read::take(text.reader, LOOKED_THROUGH as u64), LOOKED_THROUGH);
    let (mut written, mut blank_after) = (false, false);
    while let Some(line) = lines.next().map_err(|e| super::damaged_or_io(path, compressed, e))? {
        if !line.bytes.is_some_and(is_blank) {
            if blank_after {
                return Ok(true);
            }
            written = true;
        } else if written {
            blank_after = true;
        }
    }
    Ok(false)
}

#[derive(Default)]
struct Paragraph {
    bytes: Vec<u8>,
    begins: Option<u64>,
    too_long: bool,
}

impl Paragraph {
    fn add(&mut self, number: u64, line: Option<&[u8]>, limit: usize) {
        let follows = self.begins.is_some();
        self.begins.get_or_insert(number);
        match line {
            Some(line) if !self.too_long && self.bytes.len() + line.len() < limit => {
                if follows {
                    self.bytes.push(b'\n');
                }
                self.bytes.extend_from_slice(line);
            }
            _ => self.too_long = true,
        }
    }

    fn take(&self, limit: usize) -> Row<'_> {
        let line = self.begins.unwrap_or(0);
        if self.too_long {
            return Row::bad(line, BadRow::too_long(limit));
        }
        let bytes = self.bytes.strip_suffix(b"\r").unwrap_or(&self.bytes);
        let content =
            std::str::from_utf8(bytes).map(|t| Content::Text(t.into())).map_err(BadRow::invalid_utf8);
        Row { line, content, label: None }
    }

    fn clear(&mut self) {
        *self = Self { bytes: std::mem::take(&mut self.bytes), ..Self::default() };
        self.bytes.clear();
    }
}
