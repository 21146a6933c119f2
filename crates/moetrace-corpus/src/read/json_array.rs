//! The elements of one JSON array, found without parsing them, so that one broken or endless element costs
//! neither the others nor memory.

use std::io::{self, BufRead};

use super::lines::Line;

/// Reads elements of at most `limit` bytes.
pub(crate) struct Elements<R> {
    reader: R,
    limit: usize,
    element: Vec<u8>,
    line: u64,
    place: Place,
}

/// Where in the file the next byte stands, seen from the array.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Before,
    Inside,
    Behind,
}

/// Where in an element the next byte stands.
#[derive(Default)]
struct Nesting {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Nesting {
    /// Whether `byte` ends the element that stands before it.
    fn ends_at(&mut self, byte: u8) -> bool {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return false;
        }
        match byte {
            b',' | b']' if self.depth == 0 => return true,
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        false
    }
}

impl<R: BufRead> Elements<R> {
    pub(crate) fn new(reader: R, limit: usize) -> Self {
        Self { reader, limit, element: Vec::new(), line: 1, place: Place::Before }
    }

    /// The next element and the line it begins at, or none behind the closing bracket.
    pub(crate) fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        self.element.clear();
        let (mut begins, mut whole, mut nesting) = (None, true, Nesting::default());
        while self.place != Place::Behind {
            let Some(byte) = self.byte()? else {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the JSON array has no end"));
            };
            if begins.is_none() && byte.is_ascii_whitespace() {
                continue;
            }
            if self.place == Place::Before {
                self.place = Place::Inside;
                continue;
            }
            if nesting.ends_at(byte) {
                if byte == b']' {
                    self.place = Place::Behind;
                }
                if begins.is_some() {
                    break;
                }
                continue;
            }
            begins.get_or_insert(self.line);
            whole = whole && self.element.len() < self.limit;
            if whole {
                self.element.push(byte);
            }
        }
        Ok(begins.map(|number| Line { number, bytes: whole.then_some(self.element.as_slice()) }))
    }

    fn byte(&mut self) -> io::Result<Option<u8>> {
        let byte = self.reader.fill_buf()?.first().copied();
        if byte.is_some() {
            self.reader.consume(1);
        }
        if byte == Some(b'\n') {
            self.line += 1;
        }
        Ok(byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elements(text: &str, limit: usize) -> io::Result<Vec<(u64, Option<String>)>> {
        let mut elements = Elements::new(text.as_bytes(), limit);
        let mut all = Vec::new();
        while let Some(line) = elements.next()? {
            all.push((line.number, line.bytes.map(|b| String::from_utf8(b.to_vec()).unwrap())));
        }
        Ok(all)
    }

    #[test]
    fn elements_are_told_apart_whatever_stands_in_their_strings() {
        let text = "[\n {\"a\": \"],{\\\"\"},\n [1, [2]], 12345678901234567890,\n\n\"x\" ]";
        let found = elements(text, 16).unwrap();
        let expected =
            [(2, Some(r#"{"a": "],{\""}"#)), (3, Some("[1, [2]]")), (3, None), (5, Some("\"x\" "))];
        assert_eq!(found, expected.map(|(n, e)| (n, e.map(str::to_owned))));
        assert!(elements("[]", 9).unwrap().is_empty());
    }

    #[test]
    fn an_array_that_does_not_end_is_an_error() {
        for cut in ["[", "[1, 2", "[{\"a\": \"]"] {
            assert_eq!(elements(cut, 99).unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "{cut}");
        }
    }
}
