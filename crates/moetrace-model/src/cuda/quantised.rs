//! Dense tensors quantised on the GPU while they are loaded, bit-equal to [`Nf4Tensor::quantise`].
//!
//! [`Nf4Tensor::quantise`]: moetrace_nf4::Nf4Tensor::quantise

use std::cell::RefCell;

use half::{bf16, f16};
use moetrace_cuda::{
    Buffer, CudaError, Element, Nf4Double, Nf4DoubleScales, Nf4Quantise, Nf4Quantised, Nf4Source,
};
use moetrace_nf4::{BlockSize, CODE_VALUES, ElementType, Nf4Error, Nf4Settings, Target};

use super::load::Loader;
use super::origin::{Origin, convert};
use super::read::Piece;
use super::weights::{Stack, StackScales};
use crate::ModelError;

/// Most bytes of stored elements that lie on the device at once, but for a tensor that is larger by itself.
pub(super) const SCRATCH: usize = 512 << 20;
/// Tensors that are quantised by one call, at most.
const MOST_TENSORS: usize = 65_535;
/// Scales that share a scale of their own: what every library writes.
const NESTED_BLOCK: usize = 256;

/// What quantises, of each kind once it is needed.
#[derive(Debug, Default)]
pub(super) struct Quantiser {
    f32: RefCell<Option<Stage<f32>>>,
    f16: RefCell<Option<Stage<f16>>>,
    bf16: RefCell<Option<Stage<bf16>>>,
    double: RefCell<Option<Nf4Double>>,
}

/// Elements of one type on their way.
#[derive(Debug)]
struct Stage<E> {
    quantise: Nf4Quantise<E>,
    scratch: Buffer<E>,
}

impl Loader<'_> {
    /// Dense tensors, one below the other, quantised as stacks of those that are of one size and type.
    pub(super) fn quantised_stacks(&self, pieces: &[Piece]) -> Result<Vec<Stack>, ModelError> {
        let stored = |piece: &Piece| self.reader.stored(piece).ok();
        let alike = |a: &Piece, b: &Piece| a.elements() == b.elements() && stored(a) == stored(b);
        let stack = |pieces: &[Piece]| match self.reader.stored(&pieces[0])? {
            ElementType::F32 => self.quantised_stack(pieces, &self.quantiser.f32),
            ElementType::F16 => self.quantised_stack(pieces, &self.quantiser.f16),
            ElementType::Bf16 => self.quantised_stack(pieces, &self.quantiser.bf16),
        };
        pieces.chunk_by(alike).map(stack).collect()
    }

    fn quantised_stack<E: Element + Target>(
        &self,
        pieces: &[Piece],
        stage: &RefCell<Option<Stage<E>>>,
    ) -> Result<Stack, ModelError> {
        let (tensors, elements) = (pieces.len(), pieces[0].elements());
        if !elements.is_multiple_of(2) {
            return Err(self.reader.nf4_error(&pieces[0], Nf4Error::OddElements { found: elements }));
        }
        let Nf4Settings { block, double_quant, map } = self.reader.quantisation.unwrap_or_default().nf4;
        let blocks = block.blocks(elements);
        let mut codes = self.taken(tensors * (elements / 2))?;
        let absmax_room =
            if double_quant { self.device.zeros(tensors * blocks) } else { self.taken(tensors * blocks) };
        let mut absmax = absmax_room?;
        let mut refused = self.device.zeros(tensors)?;
        let at_once = (self.scratch / (elements * size_of::<E>()).max(1)).clamp(1, MOST_TENSORS);
        let mut stage = stage.borrow_mut();
        let stage = self.stage(&mut stage, at_once.min(tensors) * elements)?;
        for (number, pieces) in pieces.chunks(at_once).enumerate() {
            let (first, end) = (number * at_once, number * at_once + pieces.len());
            self.upload(pieces, &mut stage.scratch)?;
            let values = stage.scratch.part(0..pieces.len() * elements)?;
            let from = Nf4Source { tensors: pieces.len(), elements, block, values };
            let mut to = Nf4Quantised {
                codes: codes.part_mut(first * (elements / 2)..end * (elements / 2))?,
                absmax: absmax.part_mut(first * blocks..end * blocks)?,
                refused: refused.part_mut(first..end)?,
            };
            stage.quantise.run(&from, &mut to)?;
        }
        let refused = self.device.download(refused.all())?;
        let mut refused = pieces.iter().zip(refused);
        if let Some((piece, index)) = refused.find(|(_, index)| *index != Nf4Quantised::NONE_REFUSED) {
            return Err(self.not_finite(piece, index as usize)?);
        }
        let (scales, map) = if double_quant {
            let map = map.values();
            (self.doubled(pieces, &absmax, (blocks, &map))?, map)
        } else {
            (StackScales::Plain(absmax), [0.0; 256])
        };
        Ok(Stack { tensors, elements, block, codes, scales, tables: self.tables(&(CODE_VALUES, map))? })
    }

    /// What quantises elements of that type, with room for so many.
    fn stage<'s, E: Element>(
        &self,
        stage: &'s mut Option<Stage<E>>,
        elements: usize,
    ) -> Result<&'s mut Stage<E>, CudaError> {
        let stage = match stage {
            Some(stage) => stage,
            None => stage.insert(Stage {
                quantise: Nf4Quantise::new(self.device, self.compiler)?,
                scratch: self.device.zeros(0)?,
            }),
        };
        if stage.scratch.len() < elements {
            // The smaller one goes first, so that both need not fit.
            stage.scratch = self.device.zeros(0)?;
            stage.scratch = self.device.zeros(elements)?;
        }
        Ok(stage)
    }

    /// Brings pieces to the beginning of `scratch`, in the type that they are stored in.
    fn upload<E: Element + Target>(
        &self,
        pieces: &[Piece],
        scratch: &mut Buffer<E>,
    ) -> Result<(), ModelError> {
        let origins: Vec<Origin> =
            pieces.iter().map(|piece| Origin::elements(piece, E::ELEMENT, E::ELEMENT)).collect();
        let elements = pieces.iter().map(Piece::elements).sum();
        self.bring(vec![(scratch.part_mut(0..elements)?.into_bytes(), origins)])
    }

    /// Scales in 8 bits.
    fn doubled(
        &self,
        pieces: &[Piece],
        absmax: &Buffer<f32>,
        (blocks, map): (usize, &[f32; 256]),
    ) -> Result<StackScales, ModelError> {
        let tensors = pieces.len();
        let mut codes = self.taken(tensors * blocks)?;
        let mut nested = self.taken(tensors * Nf4Double::nested_blocks(blocks))?;
        let mut offsets = self.taken(tensors)?;
        let mut double = self.quantiser.double.borrow_mut();
        let double = match &mut *double {
            Some(double) => double,
            double => double.insert(Nf4Double::new(self.device, self.compiler, map)?),
        };
        let (all_codes, all_nested, all_offsets) = (codes.all_mut(), nested.all_mut(), offsets.all_mut());
        let mut to = Nf4DoubleScales { codes: all_codes, nested: all_nested, offsets: all_offsets };
        double.run(absmax.all(), blocks, &mut to)?;
        let block = BlockSize::new(NESTED_BLOCK).map_err(|error| self.reader.nf4_error(&pieces[0], error))?;
        Ok(StackScales::Double { codes, nested, offsets, block })
    }

    /// The error that an element which is not finite makes; the device has told its place, the file has its value.
    fn not_finite(&self, piece: &Piece, index: usize) -> Result<ModelError, ModelError> {
        let stored = self.reader.stored(piece)?;
        let (mut bytes, mut value) = ([0; 4], [0; 4]);
        let bytes = &mut bytes[..stored.size()];
        let start = (piece.first() + index) * stored.size();
        self.reader.checkpoint.read_part_into(&piece.name, start, bytes)?;
        convert((bytes, stored), (&mut value, ElementType::F32));
        let found = f32::from_le_bytes(value);
        Ok(self.reader.nf4_error(piece, Nf4Error::ElementNotFinite { index, found }))
    }
}
