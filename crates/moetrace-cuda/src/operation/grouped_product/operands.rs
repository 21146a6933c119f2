//! What the grouped products read, and whether it fits together.

use super::GroupedRows;
use super::kernel::MOST_EXPERTS;
use crate::launch::{count, matrix};
use crate::memory::DeviceId;
use crate::{CudaError, Element, Slice, SliceMut};

/// What a launch reads.
pub(super) struct Operands<'a, T> {
    pub(super) rows: Slice<'a, T>,
    /// Where the rows are not grouped already.
    pub(super) sources: Option<Slice<'a, u32>>,
    pub(super) depth: usize,
    pub(super) offsets: Slice<'a, u32>,
    pub(super) weights: Slice<'a, T>,
    /// Of `width` rows each, in the weights of an expert.
    pub(super) matrices: usize,
    pub(super) width: usize,
}

/// Lengths that were found to fit each other.
pub(super) struct Shape {
    /// Rows of the result.
    pub(super) rows: u32,
    /// Rows of `Operands::rows`.
    pub(super) lines: u32,
    pub(super) experts: u32,
    pub(super) weights_rows: usize,
    pub(super) depth: u32,
    pub(super) width: u32,
}

impl<'a, T: Element> Operands<'a, T> {
    pub(super) fn grouped(
        grouped: &GroupedRows<'a, T>,
        weights: Slice<'a, T>,
        (matrices, width): (usize, usize),
    ) -> Self {
        let GroupedRows { rows, depth, offsets } = *grouped;
        Self { rows, sources: None, depth, offsets, weights, matrices, width }
    }

    pub(super) fn check(&self, out: &SliceMut<'_, T>, device: DeviceId) -> Result<Shape, CudaError> {
        let (depth, width) = (self.depth, self.width);
        for (what, found) in [("the products' depth", depth), ("the products' width", width)] {
            if found == 0 || !found.is_multiple_of(8) {
                return Err(CudaError::Value { what, found, expected: "a positive multiple of 8" });
            }
        }
        let (lines, experts) = (self.rows.len() / depth, self.offsets.len().saturating_sub(1));
        if experts == 0 || experts > MOST_EXPERTS as usize {
            let expected = "from 1 to 512";
            return Err(CudaError::Value { what: "the number of experts", found: experts, expected });
        }
        self.rows.check("the experts' rows", matrix("the experts' rows", lines, depth)?, device)?;
        let rows = self.sources.map_or(lines, |sources| sources.len());
        if let Some(sources) = self.sources {
            sources.check("the sources of rows", rows, device)?;
            // The kernel counts elements of tokens by eights.
            count("the tokens' elements by eights", self.rows.len() / 8)?;
        }
        self.offsets.check("the offsets of experts", experts + 1, device)?;
        let weights_rows = matrix("the rows of the weights", experts * self.matrices, width)?;
        self.weights.check(
            "the experts' weights",
            matrix("the experts' weights", weights_rows, depth)?,
            device,
        )?;
        out.check("the products", matrix("the products", rows, width)?, device)?;
        self.rows.check_alignment("the experts' rows", 16)?;
        self.weights.check_alignment("the experts' weights", 16)?;
        out.check_alignment("the products", 16)?;
        count("the rows of the weights", weights_rows)?;
        Ok(Shape {
            rows: count("the number of rows", rows)?,
            lines: count("the number of rows", lines)?,
            experts: experts as u32,
            weights_rows,
            depth: count("the products' depth", depth)?,
            width: count("the products' width", width)?,
        })
    }
}
