//! The permutation that brings tokens of the same expert together.

use cudarc::driver::PushKernelArg as _;

use crate::launch::{Function, count, grid};
use crate::{Compiler, CudaError, Device, Element, Kernel, Slice, SliceMut};

/// Threads of a block, which finds the rows of one expert.
const THREADS: u32 = 1024;

/// Sorts the choices of tokens by expert, ascending within each.
#[derive(Debug)]
pub struct GroupByExpert {
    function: Function,
}

/// Where a permutation goes: R is N * K, the number of choices.
#[derive(Debug)]
pub struct Grouping<'a> {
    /// `[E + 1]`: rows of expert e are `offsets[e]..offsets[e + 1]`.
    pub offsets: SliceMut<'a, u32>,
    /// `[R]`: the row of each choice.
    pub places: SliceMut<'a, u32>,
    /// `[R]`: the token of each row.
    pub sources: SliceMut<'a, u32>,
}

impl GroupByExpert {
    /// Compiles the kernel.
    ///
    /// # Errors
    /// What [`Compiler::compile`] fails with, [`CudaError::DriverTooOld`], [`CudaError::Driver`].
    pub fn new(device: &Device, compiler: &Compiler) -> Result<Self, CudaError> {
        Ok(Self { function: Function::load(device, compiler, &kernel())? })
    }

    /// Queues the grouping of experts `[N, K]`, which begin at a multiple of 16 bytes; an id that is no expert counts
    /// as the last one.
    ///
    /// # Errors
    /// [`CudaError::Length`], [`CudaError::Value`], [`CudaError::Alignment`], [`CudaError::OtherDevice`] for
    /// arguments that do not fit; [`CudaError::Driver`].
    pub fn run(
        &self,
        experts: Slice<'_, u16>,
        chosen: usize,
        out: &mut Grouping<'_>,
    ) -> Result<(), CudaError> {
        let (rows, device) = (experts.len(), self.function.device);
        let blocks = count("the number of experts", out.offsets.len().saturating_sub(1))?;
        if blocks == 0 || chosen == 0 || !rows.is_multiple_of(chosen) {
            let expected = "a multiple of the experts of a token";
            return Err(CudaError::Value { what: "the number of choices", found: rows, expected });
        }
        experts.check("the chosen experts", rows, device)?;
        experts.check_alignment("the chosen experts", 16)?;
        out.offsets.check("the experts' first rows", blocks as usize + 1, device)?;
        out.places.check("the rows of choices", rows, device)?;
        out.sources.check("the tokens of rows", rows, device)?;
        let (choices, chosen) =
            (count("the number of choices", rows)?, count("the experts of a token", chosen)?);
        let mut launch = self.function.launch();
        launch.arg(&experts.address).arg(&choices).arg(&chosen);
        launch.arg(&out.offsets.address).arg(&out.places.address).arg(&out.sources.address);
        // SAFETY: the arguments are those of the kernel, in its order; it reads the choices and writes one place and one
        // source for each, and an offset more than there are experts, all found to be there, on this device and
        // borrowed for writing.
        unsafe { launch.launch(grid(blocks, THREADS)) }
            .map(|_| ())
            .map_err(CudaError::driver("launching group_by_expert"))
    }
}

/// It handles no elements; any of their types will do.
pub(super) fn kernel() -> Kernel {
    named::<half::bf16>()
}

fn named<T: Element>() -> Kernel {
    Kernel::new::<T>("group_by_expert", include_str!("../../kernels/group_by_expert.cu"))
        .define("THREADS", THREADS)
}
