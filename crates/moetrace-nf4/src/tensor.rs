//! A 4-bit tensor in memory.

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use crate::dequantise::{Blocks, restore_rounded, restore_scalar};
use crate::double::NESTED_BLOCK;
use crate::quantise::quantise_blocks;
use crate::{
    BlockSize, CODE_VALUES, DoubleQuantised, NestedState, Nf4Error, Nf4Settings, QuantState, Source, Target,
};

/// Elements that one thread restores at a time.
const JOB_ELEMENTS: usize = 65_536;

/// A quantised tensor with all that restoring it needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Nf4Tensor {
    state: QuantState,
    elements: usize,
    /// Two codes a byte, the high half first.
    codes: Box<[u8]>,
    scales: Scales,
    /// Value of each code.
    values: [f32; 16],
}

/// The scales of a tensor's blocks.
#[derive(Debug, Clone, PartialEq)]
pub enum Scales {
    /// One f32 a block.
    Plain(Box<[f32]>),
    /// 8 bits a block.
    Double {
        /// One code a block.
        codes: Box<[u8]>,
        /// Value of each code; shared, since all tensors of a checkpoint have the same.
        map: Arc<[f32; 256]>,
        /// One f32 for [`NestedState::block`] codes.
        nested: Box<[f32]>,
    },
}

impl Nf4Tensor {
    /// Quantises a tensor of `shape`, on the current thread pool.
    ///
    /// # Errors
    /// [`Nf4Error::Elements`] where shape and source disagree, and what
    /// [`quantise_blocks`](crate::quantise_blocks) refuses.
    pub fn quantise(source: Source<'_>, shape: &[usize], settings: Nf4Settings) -> Result<Self, Nf4Error> {
        let mut state = QuantState {
            block: settings.block,
            element: source.element,
            shape: shape.to_vec(),
            nested: None,
        };
        let elements = state.elements()?;
        if elements != source.elements() {
            let (shape, found) = (shape.to_vec(), source.elements());
            return Err(Nf4Error::Elements { shape, found, expected: elements });
        }
        let mut codes = vec![0; elements / 2].into_boxed_slice();
        let mut absmax = vec![0f32; settings.block.blocks(elements)].into_boxed_slice();
        quantise_blocks(source, settings.block, &mut codes, &mut absmax)?;
        let scales = if settings.double_quant {
            let map = settings.map.shared();
            let double = DoubleQuantised::new(&absmax, &map)?;
            state.nested = Some(NestedState { block: BlockSize::new(NESTED_BLOCK)?, offset: double.offset });
            let (codes, nested) = (double.codes.into(), double.nested.into());
            Scales::Double { codes, map, nested }
        } else {
            Scales::Plain(absmax)
        };
        Ok(Self { state, elements, codes, scales, values: CODE_VALUES })
    }

    /// Puts a tensor together from the parts that a checkpoint stores.
    ///
    /// # Errors
    /// [`Nf4Error::PartLength`] where a part has not the length that the state's shape and block sizes ask for,
    /// [`Nf4Error::PartMissing`] where state and scales are of different kinds, [`Nf4Error::PartNotFinite`].
    pub fn from_parts(
        state: QuantState,
        codes: Box<[u8]>,
        scales: Scales,
        values: [f32; 16],
    ) -> Result<Self, Nf4Error> {
        let elements = state.elements()?;
        let blocks = state.block.blocks(elements);
        let length = |part, found, expected| {
            if found == expected { Ok(()) } else { Err(Nf4Error::PartLength { part, found, expected }) }
        };
        length("weight", codes.len(), elements / 2)?;
        finite("quant_map", &values)?;
        match (&scales, state.nested) {
            (Scales::Plain(absmax), None) => {
                length("absmax", absmax.len() * 4, blocks * 4)?;
                finite("absmax", absmax)?;
            }
            (Scales::Double { codes, map, nested }, Some(of)) => {
                length("absmax", codes.len(), blocks)?;
                length("nested_absmax", nested.len() * 4, of.block.blocks(blocks) * 4)?;
                finite("nested_absmax", nested)?;
                finite("nested_quant_map", &map[..])?;
            }
            (Scales::Plain(_), Some(_)) => {
                return Err(Nf4Error::PartMissing {
                    part: "nested_absmax",
                    expected: "the state's nested scales",
                });
            }
            (Scales::Double { .. }, None) => {
                return Err(Nf4Error::PartMissing {
                    part: "nested_offset",
                    expected: "it beside nested scales",
                });
            }
        }
        let tensor = Self { state, elements, codes, scales, values };
        // A scale of two finite numbers can still be infinite.
        let bad =
            (0..blocks).map(|block| tensor.scale(block)).enumerate().find(|(_, scale)| !scale.is_finite());
        match bad {
            None => Ok(tensor),
            Some((index, found)) => Err(Nf4Error::PartNotFinite { part: "a restored scale", index, found }),
        }
    }

    /// How it was quantised, and its shape.
    pub fn state(&self) -> &QuantState {
        &self.state
    }

    /// Its elements.
    pub fn elements(&self) -> usize {
        self.elements
    }

    /// Two codes a byte, the high half first.
    pub fn codes(&self) -> &[u8] {
        &self.codes
    }

    /// The scales of its blocks.
    pub fn scales(&self) -> &Scales {
        &self.scales
    }

    /// Value of each code.
    pub fn values(&self) -> &[f32; 16] {
        &self.values
    }

    /// Bytes that codes and scales take in memory, the shared map not counted.
    pub fn bytes(&self) -> usize {
        let scales = match &self.scales {
            Scales::Plain(absmax) => absmax.len() * 4,
            Scales::Double { codes, nested, .. } => codes.len() + nested.len() * 4,
        };
        self.codes.len() + scales + size_of_val(&self.values)
    }

    /// Uses `map` for the scales if it holds the same values, so that tensors share one copy.
    pub fn share_map(&mut self, shared: &Arc<[f32; 256]>) {
        if let Scales::Double { map, .. } = &mut self.scales
            && map == shared
        {
            *map = Arc::clone(shared);
        }
    }

    /// The restored scale of a block: `map[q] * nested`, rounded, then `+ offset`, rounded.
    pub fn scale(&self, block: usize) -> f32 {
        match (&self.scales, self.state.nested) {
            (Scales::Plain(absmax), _) => absmax[block],
            (Scales::Double { codes, map, nested }, of) => {
                let (width, offset) = of.map_or((NESTED_BLOCK, 0.0), |of| (of.block.get(), of.offset));
                let product = map[usize::from(codes[block])] * nested[block / width];
                product + offset
            }
        }
    }

    /// Restores all elements, on the current thread.
    ///
    /// # Errors
    /// [`Nf4Error::OutputLength`] where `out` has another length.
    pub fn dequantise<T: Target>(&self, out: &mut [T]) -> Result<(), Nf4Error> {
        self.check_output(out.len())?;
        T::restore(&self.blocks(0..self.elements), out);
        Ok(())
    }

    /// Restores the elements from `start` on as f32, each rounded once by `round` (to the type that an engine
    /// computes with), on the current thread. `start` is a multiple of the block size.
    ///
    /// # Errors
    /// [`Nf4Error::OutputRange`] where the range reaches outside the tensor or begins inside a block.
    pub fn dequantise_from(
        &self,
        start: usize,
        out: &mut [f32],
        round: impl Fn(f32) -> f32,
    ) -> Result<(), Nf4Error> {
        let end = start.saturating_add(out.len());
        if end > self.elements || !start.is_multiple_of(self.state.block.get()) || !end.is_multiple_of(2) {
            let (elements, block) = (self.elements, self.state.block.get());
            return Err(Nf4Error::OutputRange { start, end, elements, block });
        }
        restore_rounded(&self.blocks(start..end), out, round);
        Ok(())
    }

    /// Restores all elements, on the current thread pool.
    ///
    /// # Errors
    /// As [`dequantise`](Self::dequantise).
    pub fn dequantise_parallel<T: Target>(&self, out: &mut [T]) -> Result<(), Nf4Error> {
        self.check_output(out.len())?;
        out.par_chunks_mut(JOB_ELEMENTS).enumerate().for_each(|(job, out)| {
            let start = job * JOB_ELEMENTS;
            T::restore(&self.blocks(start..start + out.len()), out);
        });
        Ok(())
    }

    /// As [`dequantise`](Self::dequantise), by the scalar function that defines the result.
    ///
    /// # Errors
    /// As [`dequantise`](Self::dequantise).
    pub fn dequantise_scalar<T: Target>(&self, out: &mut [T]) -> Result<(), Nf4Error> {
        self.check_output(out.len())?;
        restore_scalar(&self.blocks(0..self.elements), out);
        Ok(())
    }

    fn check_output(&self, found: usize) -> Result<(), Nf4Error> {
        let expected = self.elements;
        if found == expected { Ok(()) } else { Err(Nf4Error::OutputLength { found, expected }) }
    }

    /// The blocks of `range`, which begins where one does.
    fn blocks(&self, range: Range<usize>) -> Blocks<'_, impl Fn(usize) -> f32> {
        let width = self.state.block.get();
        let first = range.start / width;
        let codes = &self.codes[range.start / 2..range.end / 2];
        Blocks { values: &self.values, width, codes, scale: move |block| self.scale(first + block) }
    }
}

fn finite(part: &'static str, values: &[f32]) -> Result<(), Nf4Error> {
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(index) => Err(Nf4Error::PartNotFinite { part, index, found: values[index] }),
    }
}
