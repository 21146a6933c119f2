//! One safetensors file: its header checked against its size before a byte of a tensor is touched.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use safetensors::tensor::Metadata;

use crate::ModelError;

/// The header's length comes first, little endian.
const LENGTH_BYTES: u64 = 8;
/// The limit that the safetensors reference implementation sets.
const HEADER_BYTES: u64 = 100_000_000;
/// From so many bytes on, bytes are read by position also where the file is mapped: no page is faulted in, and threads
/// that read at once share no lock. Out of a warm cache, 2 MiB at a time, both gave 14 to 20 GB/s to one thread and 21
/// to 25 GB/s to two, on a file system with large pages; with small ones a fresh map faults every few of them.
const BY_POSITION: usize = 64 << 10;

/// An open file and where its tensors begin.
pub(super) struct Shard {
    path: PathBuf,
    file: File,
    /// For small parts, where mapping is allowed: no call to the system for each.
    map: Option<Mmap>,
    data_start: u64,
    len: u64,
}

impl Shard {
    pub(super) fn open(path: &Path, mmap: bool) -> Result<(Self, Metadata), ModelError> {
        let io = |source| ModelError::Io { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(io)?;
        let len = file.metadata().map_err(io)?.len();
        let mut start = Vec::new();
        (&mut file).take(LENGTH_BYTES + 1).read_to_end(&mut start).map_err(io)?;
        refuse_pickle(path, &start)?;
        let name = || path.display().to_string();
        let header_len = match start.first_chunk::<8>() {
            Some(bytes) => u64::from_le_bytes(*bytes),
            None => return Err(ModelError::Truncated { file: name(), found: len, expected: LENGTH_BYTES }),
        };
        if header_len > HEADER_BYTES {
            return Err(ModelError::HeaderLength { file: name(), found: header_len, limit: HEADER_BYTES });
        }
        let data_start = LENGTH_BYTES + header_len;
        if len < data_start {
            return Err(ModelError::Truncated { file: name(), found: len, expected: data_start });
        }
        let mut header = Vec::new();
        file.seek(SeekFrom::Start(LENGTH_BYTES)).map_err(io)?;
        (&mut file).take(header_len).read_to_end(&mut header).map_err(io)?;
        // Parsing also refuses overlaps, holes, and sizes that disagree with shape and type.
        let metadata: Metadata =
            serde_json::from_slice(&header).map_err(|source| ModelError::Header { file: name(), source })?;
        let expected = data_start.saturating_add(metadata.data_len() as u64);
        if len < expected {
            return Err(ModelError::Truncated { file: name(), found: len, expected });
        }
        if len > expected {
            return Err(ModelError::Overlong { file: name(), found: len, expected });
        }
        let map = mmap.then(|| map(&file)).transpose().map_err(io)?;
        Ok((Self { path: path.to_owned(), file, map, data_start, len }, metadata))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the whole file.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Position of the first tensor's first byte.
    pub(super) fn data_start(&self) -> u64 {
        self.data_start
    }

    /// Fills `buffer` from `offset` of the file; the caller has checked both against the header.
    pub(super) fn read_into(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ModelError> {
        let result = match &self.map {
            Some(bytes) if buffer.len() < BY_POSITION => {
                let start = offset as usize;
                let part = start.checked_add(buffer.len()).and_then(|end| bytes.get(start..end));
                part.map(|part| buffer.copy_from_slice(part))
                    .ok_or_else(|| std::io::Error::from(std::io::ErrorKind::UnexpectedEof))
            }
            _ => read_exact_at(&self.file, offset, buffer),
        };
        result.map_err(|source| ModelError::Io { path: self.path.clone(), source })
    }
}

/// Fills `buffer` from `offset` of the file on, whatever other threads read at the same time.
#[cfg(unix)]
fn read_exact_at(file: &File, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

/// The same where files have one position: threads take turns.
#[cfg(not(unix))]
fn read_exact_at(mut file: &File, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
    static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(buffer)
}

/// The names that a complete safetensors file lists.
///
/// # Errors
/// What opening any file of a checkpoint refuses.
pub(crate) fn tensor_names(path: &Path) -> Result<BTreeSet<String>, ModelError> {
    let (_, metadata) = Shard::open(path, false)?;
    Ok(metadata.tensors().into_keys().collect())
}

/// Bytes of all tensors of a complete safetensors file.
///
/// # Errors
/// What opening any file of a checkpoint refuses.
pub(crate) fn tensor_bytes(path: &Path) -> Result<u64, ModelError> {
    let (shard, _) = Shard::open(path, false)?;
    Ok(shard.len - shard.data_start)
}

fn map(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: the map is only read, through bounds-checked slices. Another process that truncates the file
    // under us makes a read fault; the size was checked just before, and `mmap: false` avoids maps altogether.
    unsafe { Mmap::map(file) }
}

/// Zip archives and pickles by their first bytes, whatever the file is called. A safetensors file can begin
/// with the same bytes (they are its header's length), but then its header opens with a brace.
fn refuse_pickle(path: &Path, start: &[u8]) -> Result<(), ModelError> {
    let magic = start.starts_with(b"PK\x03\x04") || start.first() == Some(&0x80);
    if magic && start.get(8) != Some(&b'{') {
        return Err(ModelError::Pickle { path: path.to_owned() });
    }
    Ok(())
}
