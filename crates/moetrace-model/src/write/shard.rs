//! One safetensors file in the making.
//!
//! A header comes first but depends on what follows: a `quant_state` is as long as its offset's digits. So room
//! for the longest possible header is left (a header may end in spaces), every tensor but the states has its
//! place from the start, and the states come last. Wide elements come first, so that every tensor is aligned to
//! its element, which readers that map the file rely on.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use moetrace_nf4::{ElementType, Nf4Tensor, QuantState, Scales};
use serde_json::{Map, Value, json};

use super::{OutputStorage, OutputTensor, Producer};
use crate::ModelError;

/// More than any state that we write: 40 characters for each number.
const LONGEST_STATE: usize = 512;
/// The reference implementation aligns its headers so.
const ALIGNMENT: usize = 8;

/// What safetensors calls an element type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stored {
    F32,
    Bf16,
    F16,
    U8,
    /// U8 too, but as long as it turns out.
    State,
}

impl Stored {
    fn of(element: ElementType) -> Self {
        match element {
            ElementType::F32 => Self::F32,
            ElementType::F16 => Self::F16,
            ElementType::Bf16 => Self::Bf16,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::Bf16 => "BF16",
            Self::F16 => "F16",
            Self::U8 | Self::State => "U8",
        }
    }

    fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
            Self::U8 | Self::State => 1,
        }
    }
}

/// One entry of the header.
struct Entry {
    /// Number of the tensor that it belongs to.
    tensor: usize,
    name: String,
    stored: Stored,
    shape: Vec<usize>,
    start: u64,
    end: u64,
}

/// A file that tensors are written into, in any order.
pub(crate) struct ShardFile {
    path: PathBuf,
    file: File,
    tensors: Vec<OutputTensor>,
    entries: Vec<Entry>,
    /// Numbers of each tensor's entries.
    of_tensor: Vec<Vec<usize>>,
    data_start: u64,
    states: Vec<Option<QuantState>>,
}

impl ShardFile {
    /// Creates the file, or begins it anew, and gives every tensor its place.
    pub(crate) fn create(path: &Path, tensors: &[OutputTensor]) -> Result<Self, ModelError> {
        let mut entries: Vec<Entry> =
            tensors.iter().enumerate().flat_map(|(number, tensor)| entries_of(number, tensor)).collect();
        entries.sort_by_key(|entry| entry.stored);
        place(&mut entries, |_| LONGEST_STATE);
        let mut of_tensor = vec![Vec::new(); tensors.len()];
        for (number, entry) in entries.iter().enumerate() {
            of_tensor[entry.tensor].push(number);
        }
        let room = header(&entries).len().next_multiple_of(ALIGNMENT);
        let file =
            File::create(path).map_err(|source| ModelError::Write { path: path.to_owned(), source })?;
        Ok(Self {
            path: path.to_owned(),
            file,
            entries,
            of_tensor,
            tensors: tensors.to_vec(),
            data_start: (size_of::<u64>() + room) as u64,
            states: vec![None; tensors.len()],
        })
    }

    /// Writes one tensor: the file's `tensor`, which the producer knows as `number`.
    pub(crate) fn write(
        &mut self,
        tensor: usize,
        number: usize,
        producer: &mut dyn Producer,
    ) -> Result<(), ModelError> {
        match self.tensors[tensor].storage {
            OutputStorage::Dense(_) => {
                let Some(entry) = self.of_tensor[tensor].first().map(|number| &self.entries[*number]) else {
                    return Ok(());
                };
                let (mut at, end) = (entry.start, entry.end);
                producer.dense(number, &mut |piece| {
                    self.put(at, piece)?;
                    at += piece.len() as u64;
                    Ok(())
                })?;
                if at == end {
                    return Ok(());
                }
                let (tensor, expected) = (self.tensors[tensor].name.clone(), (end - entry.start) as usize);
                let found = (at - entry.start) as usize;
                Err(ModelError::BufferLength { tensor, found, expected })
            }
            OutputStorage::Nf4 { .. } => {
                let quantised = producer.quantised(number)?;
                self.put_quantised(tensor, &quantised)
            }
        }
    }

    fn put_quantised(&mut self, tensor: usize, quantised: &Nf4Tensor) -> Result<(), ModelError> {
        let name = &self.tensors[tensor].name;
        let mine = self.of_tensor[tensor].iter().map(|number| &self.entries[*number]);
        let mine = mine.filter(|entry| entry.stored != Stored::State);
        for entry in mine {
            let bytes = match (&entry.name[name.len()..], quantised.scales()) {
                ("", _) => quantised.codes().to_vec(),
                (".quant_map", _) => le_bytes(quantised.values()),
                (".absmax", Scales::Plain(absmax)) => le_bytes(absmax),
                (".absmax", Scales::Double { codes, .. }) => codes.to_vec(),
                (".nested_absmax", Scales::Double { nested, .. }) => le_bytes(nested),
                (".nested_quant_map", Scales::Double { map, .. }) => le_bytes(&map[..]),
                _ => Vec::new(),
            };
            let expected = (entry.end - entry.start) as usize;
            if bytes.len() != expected {
                let (tensor, found) = (entry.name.clone(), bytes.len());
                return Err(ModelError::BufferLength { tensor, found, expected });
            }
            self.put(entry.start, &bytes)?;
        }
        self.states[tensor] = Some(quantised.state().clone());
        Ok(())
    }

    fn put(&self, at: u64, bytes: &[u8]) -> Result<(), ModelError> {
        self.put_at(self.data_start + at, bytes)
            .map_err(|source| ModelError::Write { path: self.path.clone(), source })
    }

    fn put_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(at))?;
        file.write_all(bytes)
    }

    /// Writes states and header, and syncs the file.
    pub(crate) fn finish(mut self) -> Result<(), ModelError> {
        let states: Vec<String> = self
            .states
            .iter()
            .map(|state| state.as_ref().map_or_else(String::new, QuantState::to_json))
            .collect();
        place(&mut self.entries, |tensor| states[tensor].len());
        for entry in self.entries.iter().filter(|entry| entry.stored == Stored::State) {
            self.put(entry.start, states[entry.tensor].as_bytes())?;
        }
        let mut header = header(&self.entries);
        let room = self.data_start as usize - size_of::<u64>();
        header.resize(room, b' ');
        self.put_at(0, &(room as u64).to_le_bytes())
            .and_then(|()| self.put_at(size_of::<u64>() as u64, &header))
            .and_then(|()| self.file.sync_all())
            .map_err(|source| ModelError::Write { path: self.path.clone(), source })
    }
}

fn le_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// The header's entries of one tensor, in the names and shapes that bitsandbytes gives them.
fn entries_of(number: usize, tensor: &OutputTensor) -> Vec<Entry> {
    let entry = |ending: &str, stored, shape: Vec<usize>| Entry {
        tensor: number,
        name: format!("{}{ending}", tensor.name),
        stored,
        shape,
        start: 0,
        end: 0,
    };
    let OutputStorage::Nf4 { settings, .. } = tensor.storage else {
        let OutputStorage::Dense(element) = tensor.storage else { return Vec::new() };
        return vec![entry("", Stored::of(element), tensor.shape.clone())];
    };
    let blocks = settings.block.blocks(tensor.elements());
    let mut entries = vec![
        entry("", Stored::U8, vec![tensor.elements() / 2, 1]),
        entry(".quant_map", Stored::F32, vec![16]),
        entry(".quant_state.bitsandbytes__nf4", Stored::State, vec![0]),
    ];
    if settings.double_quant {
        entries.push(entry(".absmax", Stored::U8, vec![blocks]));
        entries.push(entry(".nested_absmax", Stored::F32, vec![settings.nested_blocks(tensor.elements())]));
        entries.push(entry(".nested_quant_map", Stored::F32, vec![256]));
    } else {
        entries.push(entry(".absmax", Stored::F32, vec![blocks]));
    }
    entries
}

/// Gives entries their places, one after the other.
fn place(entries: &mut [Entry], state_length: impl Fn(usize) -> usize) {
    let mut at = 0;
    for entry in entries {
        if entry.stored == Stored::State {
            entry.shape = vec![state_length(entry.tensor)];
        }
        entry.start = at;
        at += (entry.shape.iter().product::<usize>() * entry.stored.size()) as u64;
        entry.end = at;
    }
}

fn header(entries: &[Entry]) -> Vec<u8> {
    let mut header = Map::new();
    // transformers refuses files without it.
    header.insert("__metadata__".to_owned(), json!({ "format": "pt" }));
    for entry in entries {
        let (dtype, offsets) = (entry.stored.name(), [entry.start, entry.end]);
        let info = json!({ "dtype": dtype, "shape": entry.shape, "data_offsets": offsets });
        header.insert(entry.name.clone(), info);
    }
    Value::Object(header).to_string().into_bytes()
}
