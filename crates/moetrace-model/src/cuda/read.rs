//! What a checkpoint's tensors are, and those of them that go through host memory.

use moetrace_nf4::{ElementType, Nf4Error, Nf4Tensor, Source};

use super::origin::{Origin, convert};
use crate::checkpoint::{Checkpoint, Nf4Rest, StorageType, TensorRole};
use crate::{ModelConfig, ModelError, Quantisation};

/// Reads tensors of one checkpoint, from several threads at once.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) config: &'a ModelConfig,
    /// How tensors are quantised that are not so in the checkpoint.
    pub(super) quantisation: Option<Quantisation>,
}

/// A tensor of the checkpoint, or one of its equal parts.
pub(super) struct Piece {
    pub(super) name: String,
    /// Which part, and the elements of each; all of the tensor without.
    pub(super) part: Option<(usize, usize)>,
    pub(super) rows: usize,
    pub(super) columns: usize,
}

impl Piece {
    pub(super) fn elements(&self) -> usize {
        self.rows * self.columns
    }

    /// The number of its first element in the tensor.
    pub(super) fn first(&self) -> usize {
        self.part.map_or(0, |(number, elements)| number * elements)
    }
}

impl<'a> Reader<'a> {
    /// A whole tensor; a vector counts as one row.
    pub(super) fn piece(&self, name: String) -> Piece {
        let shape = self.checkpoint.tensor(&name).map(|entry| entry.shape.to_vec()).unwrap_or_default();
        let columns = shape.last().copied().unwrap_or(1);
        let rows = shape.iter().product::<usize>() / columns.max(1);
        Piece { name, part: None, rows, columns }
    }

    pub(super) fn quantises(&self, role: TensorRole) -> bool {
        self.quantisation.is_some_and(|quantisation| role.is_quantised(self.config.family(), quantisation))
    }

    pub(super) fn is_stored_in_four_bits(&self, piece: &Piece) -> bool {
        self.checkpoint.tensor(&piece.name).is_some_and(|entry| entry.storage == StorageType::Nf4)
    }

    /// The type that a dense tensor's elements are stored in.
    pub(super) fn stored(&self, piece: &Piece) -> Result<ElementType, ModelError> {
        let stored = self.checkpoint.tensor(&piece.name).and_then(|entry| entry.storage.element());
        stored.ok_or_else(|| self.four_bit_role(piece))
    }

    /// Elements to compute with, as `wanted`; `role` says whether they go through 4 bits on the way.
    pub(super) fn dense(
        &self,
        piece: &Piece,
        role: TensorRole,
        wanted: ElementType,
    ) -> Result<Origin, ModelError> {
        if !self.quantises(role) && !self.is_stored_in_four_bits(piece) {
            return Ok(Origin::elements(piece, self.stored(piece)?, wanted));
        }
        let tensor = if self.is_stored_in_four_bits(piece) {
            self.whole(piece)?;
            self.checkpoint.read_nf4(&piece.name)?
        } else {
            self.quantised(piece)?
        };
        let mut values = vec![0f32; tensor.elements()];
        tensor.dequantise(&mut values).map_err(|source| self.nf4_error(piece, source))?;
        let mut bytes = vec![0; values.len() * wanted.size()];
        convert((bytemuck::cast_slice(&values), ElementType::F32), (&mut bytes, wanted));
        Ok(Origin::memory(bytes))
    }

    /// What belongs to a tensor in 4 bits but its codes and its scales.
    pub(super) fn nf4_rest(&self, piece: &Piece) -> Result<Nf4Rest<'a>, ModelError> {
        self.whole(piece)?;
        self.checkpoint.read_nf4_rest(&piece.name)
    }

    /// Fails for a part of a tensor in 4 bits, whose blocks know no parts.
    fn whole(&self, piece: &Piece) -> Result<(), ModelError> {
        if piece.part.is_some() { Err(self.four_bit_role(piece)) } else { Ok(()) }
    }

    /// Quantises stored elements, from the type that they are stored in.
    fn quantised(&self, piece: &Piece) -> Result<Nf4Tensor, ModelError> {
        let element = self.stored(piece)?;
        let mut bytes = vec![0; piece.elements() * element.size()];
        self.checkpoint.read_part_into(&piece.name, piece.first() * element.size(), &mut bytes)?;
        let settings = self.quantisation.unwrap_or_default().nf4;
        Nf4Tensor::quantise(Source { bytes: &bytes, element }, &[piece.rows, piece.columns], settings)
            .map_err(|source| self.nf4_error(piece, source))
    }

    pub(super) fn nf4_error(&self, piece: &Piece, source: Nf4Error) -> ModelError {
        ModelError::Nf4 { file: self.file(piece), tensor: piece.name.clone(), source }
    }

    fn four_bit_role(&self, piece: &Piece) -> ModelError {
        ModelError::FourBitRole { file: self.file(piece), tensor: piece.name.clone() }
    }

    fn file(&self, piece: &Piece) -> String {
        self.checkpoint.tensor(&piece.name).map(|entry| entry.file.display().to_string()).unwrap_or_default()
    }
}
