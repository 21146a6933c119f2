//! How much of the shared expert each token gets.

use std::marker::PhantomData;

use cudarc::driver::PushKernelArg as _;

use crate::launch::{Function, count, grid, matrix};
use crate::{Compiler, CudaError, Device, Element, Kernel, Slice, SliceMut};

/// Threads of a block, one warp a row.
const THREADS: u32 = 256;
const WARP: u32 = 32;

/// `sigmoid(x . w)`, the product rounded before and the result after.
#[derive(Debug)]
pub struct SharedGate<T> {
    function: Function,
    element: PhantomData<T>,
}

impl<T: Element> SharedGate<T> {
    /// Compiles the kernel.
    ///
    /// # Errors
    /// What [`Compiler::compile`] fails with, [`CudaError::DriverTooOld`], [`CudaError::Driver`].
    pub fn new(device: &Device, compiler: &Compiler) -> Result<Self, CudaError> {
        let function = Function::load(device, compiler, &kernel::<T>())?;
        Ok(Self { function, element: PhantomData })
    }

    /// Queues the gates `[N]` of x `[N, D]` with w `[D]`, both beginning at multiples of 16 bytes.
    ///
    /// # Errors
    /// [`CudaError::Length`], [`CudaError::Value`], [`CudaError::Alignment`], [`CudaError::OtherDevice`] for
    /// arguments that do not fit; [`CudaError::Driver`].
    pub fn run(
        &self,
        x: Slice<'_, T>,
        w: Slice<'_, T>,
        gates: &mut SliceMut<'_, f32>,
    ) -> Result<(), CudaError> {
        let (n, device) = (gates.len(), self.function.device);
        x.check("the gate's input", matrix("the gate's input", n, w.len())?, device)?;
        x.check_alignment("the gate's input", 16)?;
        w.check("the gate's weight", w.len(), device)?;
        w.check_alignment("the gate's weight", 16)?;
        gates.check("the gates", n, device)?;
        let (rows, width) = (count("the number of rows", n)?, count("the gate's width", w.len())?);
        if n == 0 {
            return Ok(());
        }
        let mut launch = self.function.launch();
        launch.arg(&x.address).arg(&w.address).arg(&rows).arg(&width).arg(&gates.address);
        // SAFETY: the arguments are those of the kernel, in its order; it reads N rows and the weight and writes N gates,
        // all found to be there, on this device and aligned; `gates` is borrowed for writing.
        unsafe { launch.launch(grid(rows.div_ceil(THREADS / WARP), THREADS)) }
            .map(|_| ())
            .map_err(CudaError::driver("launching shared_gate"))
    }
}

pub(super) fn kernel<T: Element>() -> Kernel {
    Kernel::new::<T>("shared_gate", include_str!("../../kernels/shared_gate.cu")).define("THREADS", THREADS)
}
