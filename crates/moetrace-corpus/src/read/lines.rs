//! Lines of bounded length: a line over the limit is passed over without being kept.

use std::io::{self, BufRead};

/// Reads lines of at most `limit` bytes.
pub(crate) struct Lines<R> {
    reader: R,
    limit: usize,
    line: Vec<u8>,
    number: u64,
}

/// One line without its line feed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// Counted from 1.
    pub(crate) number: u64,
    /// None if it exceeds the limit.
    pub(crate) bytes: Option<&'a [u8]>,
}

impl<R: BufRead> Lines<R> {
    pub(crate) fn new(reader: R, limit: usize) -> Self {
        Self { reader, limit, line: Vec::new(), number: 0 }
    }

    /// The next line, or none at the end.
    pub(crate) fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        self.line.clear();
        let (mut whole, mut begun) = (true, false);
        loop {
            let buffer = match self.reader.fill_buf() {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            if buffer.is_empty() {
                break;
            }
            begun = true;
            let feed = buffer.iter().position(|&b| b == b'\n');
            let part = &buffer[..feed.unwrap_or(buffer.len())];
            whole = whole && part.len() <= self.limit - self.line.len();
            if whole {
                self.line.extend_from_slice(part);
            }
            let used = part.len() + usize::from(feed.is_some());
            self.reader.consume(used);
            if feed.is_some() {
                break;
            }
        }
        if !begun {
            return Ok(None);
        }
        self.number += 1;
        Ok(Some(Line { number: self.number, bytes: whole.then_some(self.line.as_slice()) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[u8], limit: usize) -> Vec<(u64, Option<Vec<u8>>)> {
        // A tiny buffer, so that lines span several of them.
        let mut lines = Lines::new(io::BufReader::with_capacity(3, text), limit);
        let mut all = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            all.push((line.number, line.bytes.map(<[u8]>::to_vec)));
        }
        all
    }

    #[test]
    fn lines_over_the_limit_are_counted_and_the_next_is_whole_again() {
        let found = lines(b"ab\n\n123456\nabcde\nx", 5);
        let expected: [(u64, Option<&[u8]>); 5] =
            [(1, Some(b"ab")), (2, Some(b"")), (3, None), (4, Some(b"abcde")), (5, Some(b"x"))];
        assert_eq!(found, expected.map(|(n, l)| (n, l.map(<[u8]>::to_vec))));
        assert!(lines(b"", 5).is_empty());
    }
}
