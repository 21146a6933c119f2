//! Experts' outputs into one row a token.

use std::marker::PhantomData;

use cudarc::driver::PushKernelArg as _;

use crate::launch::{Function, count, grid, matrix};
use crate::{Compiler, CudaError, Device, Element, Kernel, Slice, SliceMut};

/// Threads of a block, which combines one token's experts; also the most experts of a token.
const THREADS: u32 = 256;

/// Weighted sums in ascending expert id in f32, the shared block after them, rounded once.
#[derive(Debug)]
pub struct Combine<T> {
    function: Function,
    element: PhantomData<T>,
}

/// What is summed for N tokens with K experts each.
#[derive(Debug, Clone, Copy)]
pub struct ExpertResults<'a, T> {
    /// `[R, D]`, one row for each pair of token and expert; begins at a multiple of 16 bytes.
    pub results: Slice<'a, T>,
    /// `[N, K]`: the row of `results` of each choice. One outside gives NaN.
    pub places: Slice<'a, u32>,
    /// `[N, K]`.
    pub experts: Slice<'a, u16>,
    /// `[N, K]`.
    pub weights: Slice<'a, f32>,
    /// The shared block's rows.
    pub shared: Option<SharedResults<'a, T>>,
}

/// The shared block's outputs for N tokens.
#[derive(Debug, Clone, Copy)]
pub struct SharedResults<'a, T> {
    /// `[N, D]`; begins at a multiple of 16 bytes.
    pub rows: Slice<'a, T>,
    /// `[N]`; 1 where there is no gate.
    pub gates: Option<Slice<'a, f32>>,
}

impl<T: Element> Combine<T> {
    /// Compiles the kernel.
    ///
    /// # Errors
    /// What [`Compiler::compile`] fails with, [`CudaError::DriverTooOld`], [`CudaError::Driver`].
    pub fn new(device: &Device, compiler: &Compiler) -> Result<Self, CudaError> {
        let function = Function::load(device, compiler, &kernel::<T>())?;
        Ok(Self { function, element: PhantomData })
    }

    /// Queues the sums into out `[N, width]`, which begins at a multiple of 16 bytes.
    ///
    /// # Errors
    /// [`CudaError::Length`], [`CudaError::Value`], [`CudaError::Alignment`], [`CudaError::OtherDevice`] for
    /// arguments that do not fit; [`CudaError::Driver`].
    pub fn run(
        &self,
        of: &ExpertResults<'_, T>,
        width: usize,
        out: &mut SliceMut<'_, T>,
    ) -> Result<(), CudaError> {
        let device = self.function.device;
        let n = out.len() / width.max(1);
        let k = of.places.len() / n.max(1);
        if k > THREADS as usize {
            let (what, expected) = ("the number of experts of a token", "at most 256");
            return Err(CudaError::Value { what, found: k, expected });
        }
        out.check("the combined rows", matrix("the combined rows", n, width)?, device)?;
        out.check_alignment("the combined rows", 16)?;
        of.places.check("the places of results", n * k, device)?;
        of.experts.check("the chosen experts", n * k, device)?;
        of.weights.check("the experts' weights", n * k, device)?;
        let result_rows = count("the number of results", of.results.len() / width.max(1))?;
        of.results.check("the results", result_rows as usize * width, device)?;
        of.results.check_alignment("the results", 16)?;
        let (mut shared, mut gates) = (0u64, 0u64);
        if let Some(block) = &of.shared {
            block.rows.check("the shared block's results", out.len(), device)?;
            block.rows.check_alignment("the shared block's results", 16)?;
            shared = block.rows.address;
            if let Some(values) = block.gates {
                values.check("the shared block's gates", n, device)?;
                gates = values.address;
            }
        }
        if result_rows == 0 && k > 0 && n > 0 {
            return Err(CudaError::Length { what: "the results", found: 0, expected: n * k * width });
        }
        let [tokens, chosen, columns] =
            [("the number of tokens", n), ("the number of experts", k), ("the width", width)]
                .map(|(what, number)| count(what, number));
        let (tokens, chosen, columns) = (tokens?, chosen?, columns?);
        if out.is_empty() {
            return Ok(());
        }
        let mut launch = self.function.launch();
        launch.arg(&of.results.address).arg(&of.places.address).arg(&of.experts.address);
        launch.arg(&of.weights.address).arg(&shared).arg(&gates);
        launch.arg(&result_rows).arg(&chosen).arg(&columns).arg(&out.address);
        // SAFETY: the arguments are those of the kernel, in its order; it reads K places, experts and weights of N
        // tokens, results below `result_rows`, shared rows and gates where they are not null, and writes N rows, all
        // found to be there, on this device and aligned; `out` is borrowed for writing.
        unsafe { launch.launch(grid(tokens, THREADS)) }
            .map(|_| ())
            .map_err(CudaError::driver("launching combine"))
    }
}

pub(super) fn kernel<T: Element>() -> Kernel {
    Kernel::new::<T>("combine", include_str!("../../kernels/combine.cu")).define("THREADS", THREADS)
}
