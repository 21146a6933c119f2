//! What a client asks.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader};
use std::net::TcpStream;

/// One request.
#[derive(Debug, Clone)]
pub struct Seen {
    /// `GET`, `HEAD`.
    pub method: String,
    /// The path as it came, percent signs and all.
    pub path: String,
    /// What stood after the question mark.
    pub query: String,
    /// Headers by their names in lower case.
    pub headers: BTreeMap<String, String>,
    /// Bytes of the body that were sent back.
    pub sent: u64,
}

/// Most lines of a request; nobody asks more.
const LINES: usize = 200;

impl Seen {
    /// Reads a request without a body; `None` from a client that only knocks.
    pub(crate) fn read(stream: &TcpStream) -> io::Result<Option<Self>> {
        let mut lines = BufReader::new(stream).lines();
        let Some(first) = lines.next().transpose()? else { return Ok(None) };
        let mut words = first.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut headers = BTreeMap::new();
        for line in lines.take(LINES) {
            let line = line?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        Ok(Some(Self { method: method.into(), path: path.into(), query: query.into(), headers, sent: 0 }))
    }

    /// A part of the query.
    pub(crate) fn query(&self, name: &str) -> Option<&str> {
        self.query.split('&').find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
    }

    /// The token that came along.
    pub(crate) fn token(&self) -> Option<&str> {
        self.headers.get("authorization")?.strip_prefix("Bearer ")
    }
}

/// `%2F` and the like as the bytes they stand for.
pub(crate) fn decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped =
            digits.filter(|_| *first == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
