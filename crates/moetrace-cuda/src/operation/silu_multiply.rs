//! The middle of a SwiGLU block.

use std::marker::PhantomData;

use cudarc::driver::PushKernelArg as _;

use crate::launch::{Function, count, grid, matrix};
use crate::{Compiler, CudaError, Device, Element, Kernel, Slice, SliceMut};

/// Threads of a block.
const THREADS: u32 = 256;
/// Blocks per multiprocessor that walk over the elements: as many as run at once.
const BLOCKS_PER_MULTIPROCESSOR: u32 = 8;

/// `silu(gate) * up` (arXiv 2002.05202), rounded once.
#[derive(Debug)]
pub struct SiluMultiply<T> {
    function: Function,
    element: PhantomData<T>,
}

impl<T: Element> SiluMultiply<T> {
    /// Compiles the kernel.
    ///
    /// # Errors
    /// What [`Compiler::compile`] fails with, [`CudaError::DriverTooOld`], [`CudaError::Driver`].
    pub fn new(device: &Device, compiler: &Compiler) -> Result<Self, CudaError> {
        let function = Function::load(device, compiler, &kernel::<T>())?;
        Ok(Self { function, element: PhantomData })
    }

    /// Queues it for both `[rows, 2 F]`, gate in the first F columns and up in the others, into out `[rows, F]`; both
    /// begin at multiples of 16 bytes.
    ///
    /// # Errors
    /// [`CudaError::Length`], [`CudaError::Value`], [`CudaError::Alignment`], [`CudaError::OtherDevice`] for
    /// arguments that do not fit; [`CudaError::Driver`].
    pub fn run(&self, both: Slice<'_, T>, width: usize, out: &mut SliceMut<'_, T>) -> Result<(), CudaError> {
        let device = self.function.device;
        let (rows, columns) = (out.len() / width.max(1), count("the width of an expert", width)?);
        out.check("the activated rows", matrix("the activated rows", rows, width)?, device)?;
        both.check("gate and up", matrix("gate and up", 2 * rows, width)?, device)?;
        both.check_alignment("gate and up", 16)?;
        out.check_alignment("the activated rows", 16)?;
        if out.is_empty() {
            return Ok(());
        }
        let each = if width.is_multiple_of(8) { 8 } else { 1 };
        let most = self.function.multiprocessors * BLOCKS_PER_MULTIPROCESSOR;
        let blocks = out.len().div_ceil(each * THREADS as usize).min(most as usize) as u32;
        let rows = rows as u64;
        let mut launch = self.function.launch();
        launch.arg(&both.address).arg(&rows).arg(&columns).arg(&out.address);
        // SAFETY: the arguments are those of the kernel, in its order; it reads `rows` rows of 2 F elements and writes
        // as many of F, all found to be there, on this device and aligned; `out` is borrowed for writing.
        unsafe { launch.launch(grid(blocks, THREADS)) }
            .map(|_| ())
            .map_err(CudaError::driver("launching silu_multiply"))
    }
}

pub(super) fn kernel<T: Element>() -> Kernel {
    Kernel::new::<T>("silu_multiply", include_str!("../../kernels/silu_multiply.cu"))
        .define("THREADS", THREADS)
}
