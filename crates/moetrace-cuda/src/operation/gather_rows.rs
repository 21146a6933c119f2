//! Rows of a table by number: the embedding of tokens.

use std::marker::PhantomData;

use cudarc::driver::PushKernelArg as _;

use crate::launch::{Function, count, grid, matrix};
use crate::{Compiler, CudaError, Device, Element, Kernel, Slice, SliceMut};

/// Threads of a block, which copies one row.
const THREADS: u32 = 128;

/// `out[n] = table[ids[n]]`.
#[derive(Debug)]
pub struct GatherRows<T> {
    function: Function,
    element: PhantomData<T>,
}

impl<T: Element> GatherRows<T> {
    /// Compiles the kernel.
    ///
    /// # Errors
    /// What [`Compiler::compile`] fails with, [`CudaError::DriverTooOld`], [`CudaError::Driver`].
    pub fn new(device: &Device, compiler: &Compiler) -> Result<Self, CudaError> {
        let function = Function::load(device, compiler, &kernel::<T>())?;
        Ok(Self { function, element: PhantomData })
    }

    /// Queues the copying: table `[rows, width]`, ids `[N]`, out `[N, width]`; table and out begin at multiples of 16
    /// bytes. An id outside the table gives a row of NaN, which the router's check of its logits finds.
    ///
    /// # Errors
    /// [`CudaError::Length`], [`CudaError::Value`], [`CudaError::Alignment`], [`CudaError::OtherDevice`] for
    /// arguments that do not fit; [`CudaError::Driver`].
    pub fn run(
        &self,
        table: Slice<'_, T>,
        width: usize,
        ids: Slice<'_, u32>,
        out: &mut SliceMut<'_, T>,
    ) -> Result<(), CudaError> {
        let device = self.function.device;
        let (n, columns) = (count("the number of ids", ids.len())?, count("the table's width", width)?);
        let rows = count("the number of rows", table.len() / width.max(1))?;
        table.check("the table", rows as usize * width, device)?;
        ids.check("the ids", ids.len(), device)?;
        out.check("the gathered rows", matrix("the gathered rows", ids.len(), width)?, device)?;
        table.check_alignment("the table", 16)?;
        out.check_alignment("the gathered rows", 16)?;
        if out.is_empty() {
            return Ok(());
        }
        let mut launch = self.function.launch();
        launch.arg(&table.address).arg(&ids.address).arg(&rows).arg(&columns).arg(&out.address);
        // SAFETY: the arguments are those of the kernel, in its order; it reads N ids, and rows below `rows` of the
        // table, and writes N rows, all found to be there, on this device and aligned; `out` is borrowed for writing.
        unsafe { launch.launch(grid(n, THREADS)) }
            .map(|_| ())
            .map_err(CudaError::driver("launching gather_rows"))
    }
}

pub(super) fn kernel<T: Element>() -> Kernel {
    Kernel::new::<T>("gather_rows", include_str!("../../kernels/gather_rows.cu")).define("THREADS", THREADS)
}
