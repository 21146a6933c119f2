//! One `.npy` file (NEP 1), read from its first element to its last.

use std::fs::File;
use std::io::{BufReader, Read as _};
use std::path::{Path, PathBuf};

use half::f16;

use crate::ExchangeError;
use crate::error::{OnPath, open_file};

/// The longest header: a shape and a type take some hundred bytes.
const MOST_HEADER_BYTES: usize = 1 << 16;

/// Kinds of elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Signed,
    Unsigned,
    Float,
}

/// An array in C order whose header has been read.
#[derive(Debug)]
pub(super) struct Array {
    path: PathBuf,
    file: BufReader<File>,
    kind: Kind,
    /// Bytes of an element.
    size: usize,
    shape: Vec<usize>,
}

impl Array {
    pub(super) fn open(path: &Path) -> Result<Self, ExchangeError> {
        let file = open_file(path)?;
        let bytes = file.metadata().on("cannot read", path)?.len();
        let mut file = BufReader::new(file);
        let wrong = |what: String| ExchangeError::file(path, what);
        let mut start = [0u8; 8];
        file.read_exact(&mut start).on("cannot read", path)?;
        if start[..6] != *b"\x93NUMPY" {
            return Err(wrong("it does not begin as a .npy file does".into()));
        }
        let width = match start[6] {
            1 => 2,
            2 | 3 => 4,
            version => return Err(wrong(format!("version {version} of .npy, expected 1 to 3"))),
        };
        let mut length = [0u8; 4];
        file.read_exact(&mut length[..width]).on("cannot read", path)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > MOST_HEADER_BYTES {
            return Err(wrong(format!(
                "its header is said to be {length} bytes, expected at most {MOST_HEADER_BYTES}"
            )));
        }
        let mut header = vec![0; length];
        file.read_exact(&mut header).on("cannot read", path)?;
        let header = String::from_utf8_lossy(&header);
        let (kind, size, shape) = parse(&header).map_err(wrong)?;
        let elements = shape.iter().try_fold(size as u64, |all, &n| all.checked_mul(n as u64));
        let expected = elements.and_then(|bytes| bytes.checked_add(8 + (width + length) as u64));
        if expected != Some(bytes) {
            let expected = expected.map_or_else(|| "more than 64 bits count".into(), |n| n.to_string());
            return Err(wrong(format!("it is {bytes} bytes, its header asks for {expected}")));
        }
        Ok(Self { path: path.to_owned(), file, kind, size, shape })
    }

    pub(super) fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The next `n` elements, whole numbers.
    pub(super) fn integers(&mut self, n: usize) -> Result<Vec<i64>, ExchangeError> {
        let (kind, size) = (self.kind, self.size);
        let bytes = self.bytes(n, kind != Kind::Float, "whole numbers")?;
        let value = |element: &[u8]| {
            let mut wide = [0; 8];
            wide[..size].copy_from_slice(element);
            let unsigned = i64::from_le_bytes(wide);
            let shift = 64 - 8 * size as u32;
            // Of a signed number the highest bit is carried on. One beyond i64 is as large as can be, which no id is.
            match kind {
                Kind::Signed => (unsigned << shift) >> shift,
                _ if unsigned < 0 => i64::MAX,
                _ => unsigned,
            }
        };
        Ok(bytes.chunks_exact(size).map(value).collect())
    }

    /// The next `n` elements, numbers with a point.
    pub(super) fn floats(&mut self, n: usize) -> Result<Vec<f32>, ExchangeError> {
        let bytes = self.bytes(n, self.kind == Kind::Float, "numbers with a point")?;
        let value = |element: &[u8]| match *element {
            [a, b] => f16::from_le_bytes([a, b]).to_f32(),
            [a, b, c, d] => f32::from_le_bytes([a, b, c, d]),
            [a, b, c, d, e, f, g, h] => f64::from_le_bytes([a, b, c, d, e, f, g, h]) as f32,
            _ => f32::NAN,
        };
        Ok(bytes.chunks_exact(self.size).map(value).collect())
    }

    fn bytes(&mut self, n: usize, is_of_kind: bool, expected: &str) -> Result<Vec<u8>, ExchangeError> {
        if !is_of_kind {
            return Err(ExchangeError::file(&self.path, format!("it does not hold {expected}")));
        }
        // The file was seen to be as long as its header asks for.
        let mut bytes = vec![0; n * self.size];
        self.file.read_exact(&mut bytes).on("cannot read", &self.path)?;
        Ok(bytes)
    }
}

/// Type and shape out of a header such as `{'descr': '<i4', 'fortran_order': False, 'shape': (3, 4, 2), }`.
fn parse(header: &str) -> Result<(Kind, usize, Vec<usize>), String> {
    let value = |key: &str| {
        let (_, rest) = header.split_once(&format!("'{key}'"))?;
        rest.trim_start().strip_prefix(':').map(str::trim_start)
    };
    let missing = |key: &str| format!("its header has no {key}");
    let descr =
        value("descr").and_then(|rest| rest.strip_prefix('\'')).and_then(|rest| rest.split_once('\''));
    let (descr, _) = descr.ok_or_else(|| missing("descr of one type"))?;
    let unexpected = || {
        format!(
            "its elements are {descr:?}, expected whole numbers or numbers with a point, little-endian, as \
             np.ascontiguousarray(a.astype('<i4')) has them"
        )
    };
    let (order, rest) = descr.split_at_checked(1).ok_or_else(unexpected)?;
    let (kind, size) = rest.split_at_checked(1).ok_or_else(unexpected)?;
    let size: usize = size.parse().map_err(|_| unexpected())?;
    let kind = match (kind, size) {
        ("i", 1 | 2 | 4 | 8) => Kind::Signed,
        ("u", 1 | 2 | 4 | 8) => Kind::Unsigned,
        ("f", 2 | 4 | 8) => Kind::Float,
        _ => return Err(unexpected()),
    };
    if !(order == "<" || (order == "|" && size == 1)) {
        return Err(unexpected());
    }
    match value("fortran_order") {
        Some(rest) if rest.starts_with("False") => {}
        Some(_) => {
            return Err("it is in Fortran order, expected C order, as np.ascontiguousarray(a) has it".into());
        }
        None => return Err(missing("fortran_order")),
    }
    let shape = value("shape").and_then(|rest| rest.strip_prefix('(')).and_then(|rest| rest.split_once(')'));
    let (shape, _) = shape.ok_or_else(|| missing("shape"))?;
    let lengths = shape.split(',').map(str::trim).filter(|length| !length.is_empty());
    let lengths: Result<Vec<usize>, _> = lengths.map(str::parse).collect();
    Ok((kind, size, lengths.map_err(|_| format!("its shape is ({shape})"))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_numpy_writes_them_and_others_are_refused() {
        let header = |descr: &str, order: &str, shape: &str| {
            parse(&format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}   \n"))
        };
        assert_eq!(header("<i4", "False", "(3, 4, 2)"), Ok((Kind::Signed, 4, vec![3, 4, 2])));
        assert_eq!(header("|u1", "False", "(7,)"), Ok((Kind::Unsigned, 1, vec![7])));
        assert_eq!(header("<f2", "False", "()"), Ok((Kind::Float, 2, vec![])));
        for (descr, order, shape, said) in [
            (">i4", "False", "(1,)", "its elements are \">i4\""),
            ("|O", "False", "(1,)", "its elements are \"|O\""),
            ("<c8", "False", "(1,)", "its elements are \"<c8\""),
            ("<i4", "True", "(1,)", "Fortran order"),
            ("<i4", "False", "(-1,)", "its shape is (-1,)"),
        ] {
            let refusal = header(descr, order, shape).unwrap_err();
            assert!(refusal.contains(said), "{refusal}");
        }
        assert!(parse("{'descr': [('a', '<i4')], 'fortran_order': False, 'shape': (1,)}").is_err());
        assert!(parse("").is_err());
    }
}
