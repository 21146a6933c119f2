//! The checkpoint store: checked names to bytes in files. It knows nothing of devices or of layers' places.

mod files;
mod layout;
mod shard;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::Dtype;

use self::shard::Shard;
use crate::ModelError;

pub(crate) use self::layout::{ExpertLayout, LayerNames, check, for_each_expected};

/// How the files are opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointSettings {
    /// Map the files instead of reading them. A file that another process shortens while it is mapped kills
    /// the reader, so network file systems want `false`.
    pub mmap: bool,
}

impl Default for CheckpointSettings {
    fn default() -> Self {
        Self { mmap: true }
    }
}

/// How a tensor's elements are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StorageType {
    /// 4 bytes an element.
    F32,
    /// 2 bytes an element.
    F16,
    /// 2 bytes an element.
    Bf16,
}

impl StorageType {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    fn from_dtype(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F32 => Some(Self::F32),
            Dtype::F16 => Some(Self::F16),
            Dtype::BF16 => Some(Self::Bf16),
            _ => None,
        }
    }
}

/// Where a tensor lies and what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorEntry<'a> {
    /// Its name in the checkpoint.
    pub name: &'a str,
    /// The file that holds it.
    pub file: &'a Path,
    /// Position of its first byte in that file.
    pub offset: u64,
    /// Its length in bytes.
    pub bytes: usize,
    /// How its elements are stored.
    pub storage: StorageType,
    /// Its dimensions, outermost first.
    pub shape: &'a [usize],
}

#[derive(Debug)]
struct Place {
    shard: usize,
    offset: u64,
    bytes: usize,
    storage: StorageType,
    shape: Vec<usize>,
}

/// The tensors of one checkpoint folder, ready to be read.
pub struct Checkpoint {
    dir: PathBuf,
    shards: Vec<Shard>,
    places: BTreeMap<String, Place>,
}

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (files, tensors) = (self.shards.len(), self.places.len());
        f.debug_struct("Checkpoint")
            .field("dir", &self.dir)
            .field("files", &files)
            .field("tensors", &tensors)
            .finish()
    }
}

impl Checkpoint {
    /// Opens `model.safetensors`, or the shards that `model.safetensors.index.json` names, and checks every
    /// header against its file's size. Reads no tensor.
    ///
    /// # Errors
    /// A [`ModelError`] that names the file: missing, a pickle, outside the folder, truncated, a header that
    /// overlaps or leaves holes, a tensor in two files or of a type that is not dense floating point.
    pub fn open(dir: &Path, settings: &CheckpointSettings) -> Result<Self, ModelError> {
        let list = files::find(dir)?;
        let mut store = Self { dir: dir.to_owned(), shards: Vec::new(), places: BTreeMap::new() };
        for name in &list.names {
            store.add_shard(&dir.join(name), settings.mmap)?;
        }
        for (tensor, shard) in &list.claims {
            let held = store.places.get(tensor).map(|place| store.shards[place.shard].path());
            if held != Some(dir.join(shard).as_path()) {
                let file = list.index.as_deref().unwrap_or(dir).display().to_string();
                return Err(ModelError::IndexMismatch { file, tensor: tensor.clone(), shard: shard.clone() });
            }
        }
        Ok(store)
    }

    fn add_shard(&mut self, path: &Path, mmap: bool) -> Result<(), ModelError> {
        let (shard, metadata) = Shard::open(path, mmap)?;
        let file = || path.display().to_string();
        for (tensor, info) in metadata.tensors() {
            let storage = StorageType::from_dtype(info.dtype).ok_or_else(|| ModelError::StorageType {
                file: file(),
                tensor: tensor.clone(),
                found: format!("{:?}", info.dtype),
            })?;
            let (start, end) = info.data_offsets;
            let place = Place {
                shard: self.shards.len(),
                offset: shard.data_start() + start as u64,
                bytes: end - start,
                storage,
                shape: info.shape.clone(),
            };
            if let Some(other) = self.places.get(&tensor) {
                let other = self.shards[other.shard].path().display().to_string();
                return Err(ModelError::Duplicate { file: file(), tensor, other });
            }
            self.places.insert(tensor, place);
        }
        self.shards.push(shard);
        Ok(())
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The safetensors files, in name order; whoever wants a hash of the weights hashes these.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.shards.iter().map(Shard::path)
    }

    /// The file whose hash identifies the configuration.
    pub fn config_file(&self) -> PathBuf {
        self.dir.join("config.json")
    }

    /// Bytes of all files together.
    pub fn total_bytes(&self) -> u64 {
        self.shards.iter().map(Shard::len).sum()
    }

    /// Every tensor, in name order.
    pub fn tensors(&self) -> impl Iterator<Item = TensorEntry<'_>> {
        self.places.iter().map(|(name, place)| self.entry(name, place))
    }

    /// One tensor, if the checkpoint has it.
    pub fn tensor(&self, name: &str) -> Option<TensorEntry<'_>> {
        self.places.get_key_value(name).map(|(name, place)| self.entry(name, place))
    }

    fn entry<'a>(&'a self, name: &'a str, place: &'a Place) -> TensorEntry<'a> {
        TensorEntry {
            name,
            file: self.shards[place.shard].path(),
            offset: place.offset,
            bytes: place.bytes,
            storage: place.storage,
            shape: &place.shape,
        }
    }

    /// Reads a whole tensor as it is stored; `buffer` has its length in bytes.
    ///
    /// # Errors
    /// [`ModelError::UnknownTensor`], [`ModelError::BufferLength`] or [`ModelError::Io`].
    pub fn read_into(&self, name: &str, buffer: &mut [u8]) -> Result<(), ModelError> {
        let place = self.place(name)?;
        if buffer.len() != place.bytes {
            let (found, expected) = (buffer.len(), place.bytes);
            return Err(ModelError::BufferLength { tensor: name.to_owned(), found, expected });
        }
        self.shards[place.shard].read_into(place.offset, buffer)
    }

    /// Reads `buffer.len()` bytes of a tensor from its byte `start` on, as one expert of a fused tensor.
    ///
    /// # Errors
    /// [`ModelError::UnknownTensor`], [`ModelError::TensorRange`] or [`ModelError::Io`].
    pub fn read_part_into(&self, name: &str, start: usize, buffer: &mut [u8]) -> Result<(), ModelError> {
        let place = self.place(name)?;
        let end = start.saturating_add(buffer.len());
        if end > place.bytes {
            let (tensor, bytes) = (name.to_owned(), place.bytes);
            return Err(ModelError::TensorRange { tensor, start, end, bytes });
        }
        self.shards[place.shard].read_into(place.offset + start as u64, buffer)
    }

    fn place(&self, name: &str) -> Result<&Place, ModelError> {
        self.places
            .get(name)
            .ok_or_else(|| ModelError::UnknownTensor { dir: self.dir.clone(), tensor: name.to_owned() })
    }
}
