//! Tensors that are stored in 4 bits, as stacks.

use moetrace_cuda::Buffer;
use moetrace_nf4::NestedState;
use rayon::prelude::*;

use super::load::{Codebook, Loader};
use super::origin::Origin;
use super::read::Piece;
use super::weights::{Stack, StackScales};
use crate::ModelError;
use crate::checkpoint::Nf4Rest;

/// A tensor in 4 bits, without its codes and its scales.
struct Stored<'a> {
    piece: &'a Piece,
    rest: Nf4Rest<'a>,
}

impl Stored<'_> {
    fn nested_block(&self) -> Option<usize> {
        self.rest.state.nested.map(|nested| nested.block.get())
    }

    fn codebook(&self) -> Codebook {
        (self.rest.values, self.rest.nested.as_ref().map_or([0.0; 256], |nested| *nested.map))
    }

    /// Whether both can lie in one stack.
    fn is_like(&self, other: &Self) -> bool {
        self.piece.elements() == other.piece.elements()
            && self.rest.state.block == other.rest.state.block
            && self.nested_block() == other.nested_block()
            && self.codebook() == other.codebook()
    }
}

impl Loader<'_> {
    /// Tensors that are stored in 4 bits, one below the other, in stacks of those that are alike.
    pub(super) fn stored_stacks(&self, pieces: &[Piece]) -> Result<Vec<Stack>, ModelError> {
        let reader = self.reader;
        let read = |piece| Ok(Stored { piece, rest: reader.nf4_rest(piece)? });
        let tensors: Vec<Stored<'_>> = pieces.par_iter().map(read).collect::<Result<_, ModelError>>()?;
        tensors.chunk_by(Stored::is_like).map(|tensors| self.stored_stack(tensors)).collect()
    }

    fn stored_stack(&self, stored: &[Stored<'_>]) -> Result<Stack, ModelError> {
        let (tensors, elements, first) = (stored.len(), stored[0].piece.elements(), &stored[0]);
        let block = first.rest.state.block;
        let blocks = block.blocks(elements);
        let pieces = || stored.iter().map(|tensor| tensor.piece);
        let scales = |bytes| pieces().map(move |piece| Origin::scales(piece, bytes)).collect();
        let codes = self.ordered_bytes(tensors * (elements / 2), pieces().map(Origin::codes).collect())?;
        let scales = match first.rest.state.nested {
            None => StackScales::Plain(self.ordered(tensors * blocks, scales(4 * blocks))?),
            Some(NestedState { block: nested_block, .. }) => {
                let nested = stored.iter().filter_map(|tensor| tensor.rest.nested.as_ref());
                let nested = Origin::floats(nested.flat_map(|nested| nested.scales.iter().copied()));
                let offset = |of: &Stored<'_>| of.rest.state.nested.map_or(0.0, |nested| nested.offset);
                let offsets = Origin::floats(stored.iter().map(offset));
                let nested: Buffer<f32> =
                    self.ordered(tensors * nested_block.blocks(blocks), vec![nested])?;
                StackScales::Double {
                    codes: self.ordered_bytes(tensors * blocks, scales(blocks))?,
                    nested,
                    offsets: self.ordered(tensors, vec![offsets])?,
                    block: nested_block,
                }
            }
        };
        Ok(Stack { tensors, elements, block, codes, scales, tables: self.tables(&first.codebook())? })
    }
}
