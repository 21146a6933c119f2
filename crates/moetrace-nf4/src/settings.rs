//! The choices that NF4 leaves open.

use std::fmt;

use crate::double::NESTED_BLOCK;
use crate::{Nf4Error, ScaleMap};

/// Elements that share a scale: a power of two from 32 to 4096.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockSize(u16);

impl BlockSize {
    /// What every library writes unless told otherwise.
    pub const DEFAULT: Self = Self(64);

    /// The sizes that bitsandbytes knows.
    ///
    /// # Errors
    /// [`Nf4Error::BlockSize`] for any other.
    pub fn new(elements: usize) -> Result<Self, Nf4Error> {
        match u16::try_from(elements) {
            Ok(small) if (32..=4096).contains(&small) && small.is_power_of_two() => Ok(Self(small)),
            _ => Err(Nf4Error::BlockSize { found: elements }),
        }
    }

    /// Elements in a block.
    pub fn get(self) -> usize {
        usize::from(self.0)
    }

    /// Blocks that hold `elements`; the last may be partly filled.
    pub fn blocks(self, elements: usize) -> usize {
        elements.div_ceil(self.get())
    }
}

impl Default for BlockSize {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl fmt::Display for BlockSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How tensors are quantised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Nf4Settings {
    /// Elements that share a scale.
    pub block: BlockSize,
    /// Whether the scales are themselves stored in 8 bits.
    pub double_quant: bool,
    /// With which map, if they are.
    pub map: ScaleMap,
}

impl Nf4Settings {
    /// Scales of the scales of a tensor, under double quantisation.
    pub fn nested_blocks(self, elements: usize) -> usize {
        self.block.blocks(elements).div_ceil(NESTED_BLOCK)
    }

    /// Bytes of codes and scales of a tensor: 4.127 bit an element by default, 4.5 without double quantisation.
    pub fn bytes(self, elements: usize) -> usize {
        let blocks = self.block.blocks(elements);
        let scales = if self.double_quant { blocks + 4 * self.nested_blocks(elements) } else { 4 * blocks };
        elements.div_ceil(2) + scales
    }
}

impl Default for Nf4Settings {
    fn default() -> Self {
        Self { block: BlockSize::DEFAULT, double_quant: true, map: ScaleMap::Reference }
    }
}
