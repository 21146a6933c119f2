//! 4-bit tensors: the one name that a configuration asks for, and the tensors that belong to it.
//!
//! bitsandbytes stores `P.weight` as codes and beside it `P.weight.absmax`, `P.weight.quant_map`,
//! `P.weight.quant_state.bitsandbytes__nf4` and, doubly quantised, `P.weight.nested_absmax` and
//! `P.weight.nested_quant_map`; they may lie in different files. The codes' storage type says nothing
//! (`quant_storage`): only their bytes count.

use std::collections::BTreeMap;

use moetrace_nf4::{NestedState, Nf4Error, QuantState};
use safetensors::Dtype;

use super::shard::Shard;
use super::{Place, Slot, StorageType};
use crate::ModelError;

/// What stands between a tensor's name and the name of its 4-bit code.
const STATE: &str = ".quant_state.bitsandbytes__";

/// A tensor as a header lists it.
pub(super) struct Listed {
    pub(super) slot: Slot,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
}

/// All tensors of a checkpoint as its headers list them.
pub(super) type Listing = BTreeMap<String, Listed>;

/// Where the parts of a quantised tensor lie; their lengths agree with the state.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) state: QuantState,
    pub(super) quant_map: Slot,
    pub(super) absmax: Slot,
    /// Scales of the scales, and the values of their codes.
    pub(super) nested: Option<(Slot, Slot)>,
}

impl Parts {
    /// Bytes of codes and scales; the maps, equal everywhere, are not counted.
    pub(super) fn bytes(&self, codes: Slot) -> usize {
        codes.bytes + self.absmax.bytes + self.nested.map_or(0, |(absmax, _)| absmax.bytes)
    }
}

/// Turns a listing into the tensors that a configuration knows, each with its parts.
pub(super) fn gather(mut listing: Listing, shards: &[Shard]) -> Result<BTreeMap<String, Place>, ModelError> {
    let mut places = BTreeMap::new();
    let states: Vec<String> = listing.keys().filter(|name| name.contains(STATE)).cloned().collect();
    for name in states {
        let Some((tensor, code)) = name.split_once(STATE) else { continue };
        let Some(of) = listing.get(&name).map(|listed| listed.slot.shard) else { continue };
        let file = || shards[of].path().display().to_string();
        if code != "nf4" {
            let (tensor, found) = (tensor.to_owned(), code.to_owned());
            return Err(ModelError::FourBitCode { file: file(), tensor, found });
        }
        let mut group = Group { listing: &mut listing, shards, tensor };
        let place = group.take().map_err(|error| error.named(file, tensor))?;
        places.insert(tensor.to_owned(), place);
    }
    for (name, listed) in listing {
        let Some(storage) = StorageType::from_dtype(listed.dtype) else {
            let file = shards[listed.slot.shard].path().display().to_string();
            return Err(ModelError::StorageType { file, tensor: name, found: format!("{:?}", listed.dtype) });
        };
        places.insert(name, Place { slot: listed.slot, storage, shape: listed.shape, parts: None });
    }
    Ok(places)
}

/// What is wrong with a 4-bit tensor's parts; the caller knows its name.
pub(super) enum Refused {
    Nf4(Nf4Error),
    Model(ModelError),
}

impl Refused {
    pub(super) fn named(self, file: impl FnOnce() -> String, tensor: &str) -> ModelError {
        match self {
            Self::Nf4(source) => ModelError::Nf4 { file: file(), tensor: tensor.to_owned(), source },
            Self::Model(error) => error,
        }
    }
}

impl From<Nf4Error> for Refused {
    fn from(error: Nf4Error) -> Self {
        Self::Nf4(error)
    }
}

impl From<ModelError> for Refused {
    fn from(error: ModelError) -> Self {
        Self::Model(error)
    }
}

/// The tensors that belong to one name.
struct Group<'a> {
    listing: &'a mut Listing,
    shards: &'a [Shard],
    tensor: &'a str,
}

impl Group<'_> {
    fn take(&mut self) -> Result<Place, Refused> {
        let state = self.part(".quant_state.bitsandbytes__nf4", "the state of the tensor")?.slot;
        let mut bytes = vec![0; state.bytes.min(1 << 20)];
        self.shards[state.shard].read_into(state.offset, &mut bytes)?;
        let state = QuantState::parse(&bytes)?;
        let elements = state.elements()?;
        let blocks = state.block.blocks(elements);
        let codes = self.part("", "the tensor's codes")?.slot;
        length("weight", codes, elements / 2)?;
        let quant_map = self.floats(".quant_map", "quant_map", 16)?;
        let (absmax, nested) = match state.nested {
            None => (self.floats(".absmax", "absmax", blocks)?, None),
            Some(NestedState { block, .. }) => {
                let absmax = self.part(".absmax", "one byte a block")?;
                length("absmax", absmax.slot, blocks)?;
                let nested = self.floats(".nested_absmax", "nested_absmax", block.blocks(blocks))?;
                let map = self.floats(".nested_quant_map", "nested_quant_map", 256)?;
                (absmax.slot, Some((nested, map)))
            }
        };
        let shape = state.shape.clone();
        let parts = Some(Box::new(Parts { state, quant_map, absmax, nested }));
        Ok(Place { slot: codes, storage: StorageType::Nf4, shape, parts })
    }

    fn part(&mut self, ending: &'static str, expected: &'static str) -> Result<Listed, Nf4Error> {
        let part = if ending.is_empty() { "weight" } else { &ending[1..] };
        let found = self.listing.remove(&format!("{}{ending}", self.tensor));
        found.ok_or(Nf4Error::PartMissing { part, expected })
    }

    fn floats(&mut self, ending: &'static str, part: &'static str, count: usize) -> Result<Slot, Refused> {
        let listed = self.part(ending, "an f32 tensor")?;
        if listed.dtype != Dtype::F32 {
            let file = self.shards[listed.slot.shard].path().display().to_string();
            let (tensor, found) = (format!("{}{ending}", self.tensor), format!("{:?}", listed.dtype));
            return Err(ModelError::StorageType { file, tensor, found }.into());
        }
        // A count that overflows equals no length.
        length(part, listed.slot, count.saturating_mul(4))?;
        Ok(listed.slot)
    }
}

fn length(part: &'static str, slot: Slot, expected: usize) -> Result<(), Nf4Error> {
    if slot.bytes == expected {
        return Ok(());
    }
    Err(Nf4Error::PartLength { part, found: slot.bytes, expected })
}
