//! The checkpoint store: checked names to bytes in files. It knows nothing of devices or of layers' places.

mod entry;
mod files;
mod four_bit;
mod layout;
mod parts;
mod shard;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use self::four_bit::{Listed, Listing};
use self::shard::Shard;
use crate::ModelError;

pub use self::entry::{StorageType, TensorEntry};
pub use self::layout::TensorRole;
pub(crate) use self::layout::{
    ExpertLayout, LayerNames, check, check_precision, expert_layouts, for_each_expected,
};
pub(crate) use self::parts::Nf4Rest;
pub(crate) use self::shard::{tensor_bytes, tensor_names};

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

/// Bytes of one file.
#[derive(Debug, Clone, Copy)]
struct Slot {
    shard: usize,
    offset: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Place {
    /// The elements; under NF4 the codes.
    slot: Slot,
    storage: StorageType,
    shape: Vec<usize>,
    /// What else belongs to a quantised tensor.
    parts: Option<Box<four_bit::Parts>>,
}

/// The tensors of one checkpoint folder, ready to be read.
pub struct Checkpoint {
    dir: PathBuf,
    settings: CheckpointSettings,
    shards: Vec<Shard>,
    places: BTreeMap<String, Place>,
    /// The map of the first doubly quantised tensor that was read; the others share it.
    map: OnceLock<Arc<[f32; 256]>>,
}

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (files, tensors) = (self.shards.len(), self.places.len());
        f.debug_struct("Checkpoint")
            .field("dir", &self.dir)
            .field("files", &files)
            .field("tensors", &tensors)
            .finish_non_exhaustive()
    }
}

impl Checkpoint {
    /// Opens `model.safetensors`, or the shards that `model.safetensors.index.json` names, and checks every
    /// header against its file's size. Of the tensors it reads only the states of 4-bit ones.
    ///
    /// # Errors
    /// A [`ModelError`] that names the file: missing, a pickle, outside the folder, truncated, a header that
    /// overlaps or leaves holes, a tensor in two files or of a type that is neither dense floating point nor
    /// NF4, a 4-bit tensor whose parts are missing or not as long as its state says.
    pub fn open(dir: &Path, settings: &CheckpointSettings) -> Result<Self, ModelError> {
        let list = files::find(dir)?;
        let (mut shards, mut listing) = (Vec::new(), Listing::new());
        for name in &list.names {
            add_shard(&dir.join(name), settings.mmap, &mut shards, &mut listing)?;
        }
        for (tensor, shard) in &list.claims {
            let held = listing.get(tensor).map(|listed| shards[listed.slot.shard].path());
            if held != Some(dir.join(shard).as_path()) {
                let file = list.index.as_deref().unwrap_or(dir).display().to_string();
                return Err(ModelError::IndexMismatch { file, tensor: tensor.clone(), shard: shard.clone() });
            }
        }
        let places = four_bit::gather(listing, &shards)?;
        Ok(Self { dir: dir.to_owned(), settings: *settings, shards, places, map: OnceLock::new() })
    }

    /// The same folder opened once more, in the same way.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn reopened(&self) -> Result<Self, ModelError> {
        Self::open(&self.dir, &self.settings)
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
        let parts = place.parts.as_deref();
        TensorEntry {
            name,
            file: self.shards[place.slot.shard].path(),
            offset: place.slot.offset,
            bytes: parts.map_or(place.slot.bytes, |parts| parts.bytes(place.slot)),
            storage: place.storage,
            shape: &place.shape,
            quantised: parts.map(|parts| &parts.state),
        }
    }

    /// Whether any tensor is stored in 4 bits.
    pub fn is_four_bit(&self) -> bool {
        self.places.values().any(|place| place.storage == StorageType::Nf4)
    }

    /// Reads a whole tensor as it is stored; `buffer` has its length in bytes (under NF4 that of its codes).
    ///
    /// # Errors
    /// [`ModelError::UnknownTensor`], [`ModelError::BufferLength`] or [`ModelError::Io`].
    pub fn read_into(&self, name: &str, buffer: &mut [u8]) -> Result<(), ModelError> {
        let place = self.place(name)?;
        let Slot { shard, offset, bytes } = place.slot;
        if buffer.len() != bytes {
            let (found, expected) = (buffer.len(), bytes);
            return Err(ModelError::BufferLength { tensor: name.to_owned(), found, expected });
        }
        self.shards[shard].read_into(offset, buffer)
    }

    /// Reads `buffer.len()` bytes of a tensor from its byte `start` on, as one expert of a fused tensor.
    ///
    /// # Errors
    /// [`ModelError::UnknownTensor`], [`ModelError::TensorRange`] or [`ModelError::Io`].
    pub fn read_part_into(&self, name: &str, start: usize, buffer: &mut [u8]) -> Result<(), ModelError> {
        let Slot { shard, offset, bytes } = self.place(name)?.slot;
        let end = start.saturating_add(buffer.len());
        if end > bytes {
            return Err(ModelError::TensorRange { tensor: name.to_owned(), start, end, bytes });
        }
        self.shards[shard].read_into(offset + start as u64, buffer)
    }

    fn place(&self, name: &str) -> Result<&Place, ModelError> {
        self.places
            .get(name)
            .ok_or_else(|| ModelError::UnknownTensor { dir: self.dir.clone(), tensor: name.to_owned() })
    }
}

fn add_shard(
    path: &Path,
    mmap: bool,
    shards: &mut Vec<Shard>,
    listing: &mut Listing,
) -> Result<(), ModelError> {
    let (shard, metadata) = Shard::open(path, mmap)?;
    for (tensor, info) in metadata.tensors() {
        let (start, end) = info.data_offsets;
        let (number, offset) = (shards.len(), shard.data_start() + start as u64);
        let slot = Slot { shard: number, offset, bytes: end - start };
        if let Some(other) = listing.get(&tensor) {
            // A header cannot list a name twice, so the other is in an earlier file.
            let other = shards[other.slot.shard].path().display().to_string();
            return Err(ModelError::Duplicate { file: path.display().to_string(), tensor, other });
        }
        listing.insert(tensor, Listed { slot, dtype: info.dtype, shape: info.shape.clone() });
    }
    shards.push(shard);
    Ok(())
}
