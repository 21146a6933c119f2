//! The parts of a 4-bit tensor: all of them as one tensor, or those that are large by themselves.

use std::sync::Arc;

use moetrace_nf4::{NestedState, Nf4Error, Nf4Tensor, QuantState, Scales};

use super::four_bit::{Parts, Refused};
use super::shard::Shard;
use super::{Checkpoint, Place, Slot};
use crate::ModelError;

/// What restoring a 4-bit tensor takes beside its codes and one scale, or the code of one, a block.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Nf4Rest<'a> {
    /// How it was quantised.
    pub(crate) state: &'a QuantState,
    /// Value of each code.
    pub(crate) values: [f32; 16],
    /// Of a doubly quantised tensor.
    pub(crate) nested: Option<Nf4Nested>,
}

/// What turns codes of scales into scales; the offset is in the tensor's state.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Nf4Nested {
    /// Value of each code.
    pub(crate) map: Box<[f32; 256]>,
    /// One scale for [`NestedState::block`] codes.
    pub(crate) scales: Vec<f32>,
}

impl Checkpoint {
    /// Reads a tensor that is stored in 4 bits: codes, scales and maps as they are in the file.
    ///
    /// # Errors
    /// [`ModelError::UnknownTensor`], [`ModelError::NotFourBit`], [`ModelError::Io`], or [`ModelError::Nf4`]
    /// where a scale or a value of a map is not a finite number.
    pub fn read_nf4(&self, name: &str) -> Result<Nf4Tensor, ModelError> {
        let four_bit = self.four_bit(name)?;
        let mut tensor = four_bit.whole().map_err(|error| four_bit.named(name, error))?;
        if let Scales::Double { map, .. } = tensor.scales() {
            let shared = Arc::clone(self.map.get_or_init(|| Arc::clone(map)));
            tensor.share_map(&shared);
        }
        Ok(tensor)
    }

    /// Reads what [`read_nf4`](Self::read_nf4) reads but codes and the scales of blocks, and finds the same faults; of
    /// plain scales [`read_scales_into`](Self::read_scales_into) does.
    ///
    /// # Errors
    /// As [`read_nf4`](Self::read_nf4).
    pub(crate) fn read_nf4_rest(&self, name: &str) -> Result<Nf4Rest<'_>, ModelError> {
        let four_bit = self.four_bit(name)?;
        four_bit.rest().map_err(|error| four_bit.named(name, error))
    }

    /// Reads the scales of a 4-bit tensor's blocks, from byte `start` of what is stored on: f32 numbers, of which both ends
    /// hold whole ones, or under double quantisation a byte each.
    ///
    /// # Errors
    /// [`ModelError::UnknownTensor`], [`ModelError::NotFourBit`], [`ModelError::TensorRange`], [`ModelError::Io`], or
    /// [`ModelError::Nf4`] where a scale is not a finite number.
    pub(crate) fn read_scales_into(
        &self,
        name: &str,
        start: usize,
        buffer: &mut [u8],
    ) -> Result<(), ModelError> {
        let four_bit = self.four_bit(name)?;
        let absmax = four_bit.parts.absmax;
        let end = start.saturating_add(buffer.len());
        if end > absmax.bytes {
            return Err(ModelError::TensorRange { tensor: name.to_owned(), start, end, bytes: absmax.bytes });
        }
        self.shards[absmax.shard].read_into(absmax.offset + start as u64, buffer)?;
        if four_bit.parts.nested.is_some() {
            return Ok(());
        }
        let scales = buffer.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
        finite("absmax", start / 4, scales).map_err(|error| four_bit.named(name, error.into()))
    }

    fn four_bit(&self, name: &str) -> Result<FourBit<'_>, ModelError> {
        let Place { slot, parts, .. } = self.place(name)?;
        let Some(parts) = parts else {
            let file = self.shards[slot.shard].path().display().to_string();
            return Err(ModelError::NotFourBit { file, tensor: name.to_owned() });
        };
        Ok(FourBit { codes: *slot, parts, shards: &self.shards })
    }
}

/// Where a 4-bit tensor lies.
struct FourBit<'a> {
    codes: Slot,
    parts: &'a Parts,
    shards: &'a [Shard],
}

impl<'a> FourBit<'a> {
    fn named(&self, name: &str, error: Refused) -> ModelError {
        error.named(|| self.shards[self.codes.shard].path().display().to_string(), name)
    }

    fn whole(&self) -> Result<Nf4Tensor, Refused> {
        let Parts { state, quant_map, absmax, nested } = self.parts;
        let values = self.array(*quant_map)?;
        let scales = match *nested {
            None => Scales::Plain(self.floats(*absmax)?.into()),
            Some((nested, map)) => {
                let (codes, nested) = (self.bytes(*absmax)?, self.floats(nested)?.into());
                Scales::Double { codes, map: Arc::new(self.array(map)?), nested }
            }
        };
        Ok(Nf4Tensor::from_parts(state.clone(), self.bytes(self.codes)?, scales, values)?)
    }

    fn rest(&self) -> Result<Nf4Rest<'a>, Refused> {
        let values: [f32; 16] = self.array(self.parts.quant_map)?;
        finite("quant_map", 0, values.iter().copied())?;
        let nested = self.parts.nested.map(|(scales, map)| self.nested(scales, map)).transpose()?;
        Ok(Nf4Rest { state: &self.parts.state, values, nested })
    }

    fn nested(&self, scales: Slot, map: Slot) -> Result<Nf4Nested, Refused> {
        let nested = Nf4Nested { map: Box::new(self.array(map)?), scales: self.floats(scales)? };
        finite("nested_absmax", 0, nested.scales.iter().copied())?;
        finite("nested_quant_map", 0, nested.map.iter().copied())?;
        let Some(NestedState { block, offset }) = self.parts.state.nested else { return Ok(nested) };
        // A scale of two finite numbers can still be infinite. Rounding keeps order, so none is where the largest that
        // any code gives is not.
        let largest = |values: &[f32]| values.iter().map(|value| value.abs()).fold(0.0, f32::max);
        if (largest(&nested.map[..]) * largest(&nested.scales) + offset.abs()).is_finite() {
            return Ok(nested);
        }
        let codes = self.bytes(self.parts.absmax)?;
        let restored = codes.iter().enumerate().map(|(number, code)| {
            let product = nested.map[usize::from(*code)] * nested.scales[number / block.get()];
            product + offset
        });
        finite("a restored scale", 0, restored)?;
        Ok(nested)
    }

    fn bytes(&self, slot: Slot) -> Result<Box<[u8]>, ModelError> {
        let mut bytes = vec![0; slot.bytes].into_boxed_slice();
        self.shards[slot.shard].read_into(slot.offset, &mut bytes)?;
        Ok(bytes)
    }

    fn floats(&self, slot: Slot) -> Result<Vec<f32>, ModelError> {
        Ok(self.bytes(slot)?.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }

    /// Numbers of a part that opening the checkpoint has found to be so many.
    fn array<const N: usize>(&self, slot: Slot) -> Result<[f32; N], ModelError> {
        let mut values = [0.0; N];
        values.copy_from_slice(&self.floats(slot)?);
        Ok(values)
    }
}

/// Finds the first of `values` that is not finite; they begin at place `start` of the part.
fn finite(part: &'static str, start: usize, mut values: impl Iterator<Item = f32>) -> Result<(), Nf4Error> {
    let mut index = start;
    let found = values.find(|value| {
        index += 1;
        !value.is_finite()
    });
    found.map_or(Ok(()), |found| Err(Nf4Error::PartNotFinite { part, index: index - 1, found }))
}

#[cfg(test)]
mod tests;
