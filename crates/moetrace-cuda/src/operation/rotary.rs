//! Rotary position embedding.

use std::marker::PhantomData;

use cudarc::driver::PushKernelArg as _;

use crate::launch::{Function, count, grid, matrix};
use crate::memory::DeviceId;
use crate::{Compiler, CudaError, Device, Element, Kernel, Slice, SliceMut};

/// Threads of a block, which rotates one row.
const THREADS: u32 = 256;

/// Rotates heads in place by their row's position (arXiv 2104.09864, rotate-half form), each value rounded once.
#[derive(Debug)]
pub struct Rotary<T> {
    function: Function,
    element: PhantomData<T>,
}

/// Cosines and sines on the device, as rounded on the host.
#[derive(Debug, Clone, Copy)]
pub struct RotaryTables<'a, T> {
    /// `[positions, width / 2]`.
    pub cosines: Slice<'a, T>,
    /// `[positions, width / 2]`.
    pub sines: Slice<'a, T>,
}

/// Heads that lie side by side in each row of a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadRows {
    /// Heads of a row.
    pub heads: usize,
    /// Elements of a head, an even number.
    pub width: usize,
    /// Elements from one row's first head to the next row's.
    pub stride: usize,
}

impl HeadRows {
    /// Fails unless x holds so many rows of such heads on that device; the last row needs no columns behind its heads.
    pub(crate) fn check<T>(
        &self,
        x: &SliceMut<'_, T>,
        rows: usize,
        device: DeviceId,
    ) -> Result<(), CudaError> {
        let used = matrix("the heads", self.heads, self.width)?;
        if self.width == 0 || self.heads == 0 || self.stride < used {
            let expected = "not 0, and heads that fit into the stride";
            return Err(CudaError::Value { what: "the width of a head", found: self.width, expected });
        }
        let all = matrix("the rows of heads", rows, self.stride)?;
        let least = all.saturating_sub(self.stride - used);
        let expected = if x.len() < least { least } else { x.len().min(all) };
        x.check("the rows of heads", expected, device)
    }
}

impl<T: Element> Rotary<T> {
    /// Compiles the kernel.
    ///
    /// # Errors
    /// What [`Compiler::compile`] fails with, [`CudaError::DriverTooOld`], [`CudaError::Driver`].
    pub fn new(device: &Device, compiler: &Compiler) -> Result<Self, CudaError> {
        let function = Function::load(device, compiler, &kernel::<T>())?;
        Ok(Self { function, element: PhantomData })
    }

    /// Queues the rotation of x, whose N rows hold heads as `shape` says; the last row may end with its last head.
    /// positions `[N]`; one outside the tables gives NaN.
    ///
    /// # Errors
    /// [`CudaError::Length`], [`CudaError::Value`], [`CudaError::Alignment`], [`CudaError::OtherDevice`] for
    /// arguments that do not fit; [`CudaError::Driver`].
    pub fn run(
        &self,
        x: &mut SliceMut<'_, T>,
        shape: HeadRows,
        positions: Slice<'_, u32>,
        tables: RotaryTables<'_, T>,
    ) -> Result<(), CudaError> {
        let (n, device) = (positions.len(), self.function.device);
        let HeadRows { heads, width, stride } = shape;
        if !width.is_multiple_of(2) {
            return Err(CudaError::Value { what: "the width of a head", found: width, expected: "even" });
        }
        shape.check(x, n, device)?;
        let used = heads * width;
        positions.check("the positions", n, device)?;
        let angles = tables.cosines.len() / (width / 2) * (width / 2);
        tables.cosines.check("the cosines", angles, device)?;
        tables.sines.check("the sines", angles, device)?;
        let [rows, heads, half, stride, table_rows] = [
            count("the number of rows", n)?,
            count("the heads of a row", used / width)?,
            count("the width of a head", width / 2)?,
            count("the stride", stride)?,
            count("the positions of the tables", angles / (width / 2))?,
        ];
        count("the elements of a row", used)?;
        if n == 0 {
            return Ok(());
        }
        let mut launch = self.function.launch();
        launch
            .arg(&x.address)
            .arg(&positions.address)
            .arg(&tables.cosines.address)
            .arg(&tables.sines.address);
        launch.arg(&heads).arg(&half).arg(&stride).arg(&table_rows);
        // SAFETY: the arguments are those of the kernel, in its order; it touches the heads of N rows of x, which is
        // borrowed for writing, reads N positions, and table rows below `table_rows`, all found to be there.
        unsafe { launch.launch(grid(rows, THREADS)) }
            .map(|_| ())
            .map_err(CudaError::driver("launching rotary"))
    }
}

pub(super) fn kernel<T: Element>() -> Kernel {
    Kernel::new::<T>("rotary", include_str!("../../kernels/rotary.cu")).define("THREADS", THREADS)
}
