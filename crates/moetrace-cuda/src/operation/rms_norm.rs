//! RMSNorm, with or without the residual sum before it.

use std::marker::PhantomData;

use cudarc::driver::PushKernelArg as _;

use crate::launch::{Function, count, grid, matrix};
use crate::{Compiler, CudaError, Device, Element, HeadRows, Kernel, Slice, SliceMut};

/// Threads of a block, which norms one row.
const THREADS: u32 = 256;
/// The same where a row is as narrow as a head: more blocks run at once, and each has fewer idle threads.
const FEW_THREADS: u32 = 32;
/// Widest row that few threads norm.
const NARROW: usize = 512;

/// RMSNorm (arXiv 1910.07467): `x / sqrt(mean of x^2 + eps)`, rounded, times the weight, rounded.
#[derive(Debug)]
pub struct RmsNorm<T> {
    plain: Function,
    residual: Function,
    narrow: Function,
    element: PhantomData<T>,
}

impl<T: Element> RmsNorm<T> {
    /// Compiles the kernel, without and with the residual sum.
    ///
    /// # Errors
    /// What [`Compiler::compile`] fails with, [`CudaError::DriverTooOld`], [`CudaError::Driver`].
    pub fn new(device: &Device, compiler: &Compiler) -> Result<Self, CudaError> {
        let [plain, residual, narrow] = kernels::<T>();
        let load = |kernel| Function::load(device, compiler, kernel);
        let (plain, residual, narrow) = (load(&plain)?, load(&residual)?, load(&narrow)?);
        Ok(Self { plain, residual, narrow, element: PhantomData })
    }

    /// Queues the norm of x `[N, D]` with weight `[D]` into out `[N, D]`; all begin at multiples of 16 bytes.
    ///
    /// # Errors
    /// [`CudaError::Length`], [`CudaError::Value`], [`CudaError::Alignment`], [`CudaError::OtherDevice`] for
    /// arguments that do not fit; [`CudaError::Driver`].
    pub fn run(
        &self,
        x: Slice<'_, T>,
        weight: Slice<'_, T>,
        eps: f32,
        out: &mut SliceMut<'_, T>,
    ) -> Result<(), CudaError> {
        x.check("the rows to be normed", out.len(), self.plain.device)?;
        x.check_alignment("the rows to be normed", 16)?;
        launch(&self.plain, (x.address, 0), weight, eps, out)
    }

    /// Queues the norm of each head by itself, in place: x holds N rows of heads as `shape` says (one head as wide as
    /// all of them norms them together), weight `[shape.width]`; the last row may end with its last head.
    ///
    /// # Errors
    /// [`CudaError::Length`], [`CudaError::Value`], [`CudaError::Alignment`], [`CudaError::OtherDevice`] for
    /// arguments that do not fit; [`CudaError::Driver`].
    pub fn run_in_place(
        &self,
        x: &mut SliceMut<'_, T>,
        rows: usize,
        shape: HeadRows,
        weight: Slice<'_, T>,
        eps: f32,
    ) -> Result<(), CudaError> {
        let narrow = shape.width <= NARROW;
        let function = if narrow { &self.narrow } else { &self.plain };
        let threads = if narrow { FEW_THREADS } else { THREADS };
        shape.check(x, rows, function.device)?;
        weight.check("the norm's weight", shape.width, function.device)?;
        // Eights are read at once only where every head begins at a multiple of eight elements.
        if shape.width.is_multiple_of(8) && shape.stride.is_multiple_of(8) {
            x.check_alignment("the rows to be normed", 16)?;
            weight.check_alignment("the norm's weight", 16)?;
        }
        let blocks = count("the number of heads", matrix("the heads", rows, shape.heads)?)?;
        let [width, heads, stride] = [
            count("the width", shape.width)?,
            count("the heads", shape.heads)?,
            count("the stride", shape.stride)?,
        ];
        if blocks == 0 {
            return Ok(());
        }
        let mut launch = function.launch();
        launch.arg(&x.address).arg(&0u64).arg(&weight.address).arg(&eps);
        launch.arg(&width).arg(&heads).arg(&stride).arg(&x.address);
        // SAFETY: the arguments are those of the kernel, in its order; it reads and writes the heads of `rows` rows of
        // x, which `shape.check` found to be there and which is borrowed for writing, and reads the weight. Each thread
        // writes only what it alone has read.
        unsafe { launch.launch(grid(blocks, threads)) }
            .map(|_| ())
            .map_err(CudaError::driver("launching rms_norm"))
    }

    /// Queues `x = x + y`, rounded, and the norm of that: x, y and out `[N, D]`, weight `[D]`.
    ///
    /// # Errors
    /// [`CudaError::Length`], [`CudaError::Value`], [`CudaError::Alignment`], [`CudaError::OtherDevice`] for
    /// arguments that do not fit; [`CudaError::Driver`].
    pub fn run_with_residual(
        &self,
        x: &mut SliceMut<'_, T>,
        y: Slice<'_, T>,
        weight: Slice<'_, T>,
        eps: f32,
        out: &mut SliceMut<'_, T>,
    ) -> Result<(), CudaError> {
        x.check("the residual stream", out.len(), self.residual.device)?;
        x.check_alignment("the residual stream", 16)?;
        y.check("what is added to the residual stream", out.len(), self.residual.device)?;
        y.check_alignment("what is added to the residual stream", 16)?;
        launch(&self.residual, (x.address, y.address), weight, eps, out)
    }
}

/// Launches with x and y found to be as long as `out`, here and aligned.
fn launch<T: Element>(
    function: &Function,
    (x, y): (u64, u64),
    weight: Slice<'_, T>,
    eps: f32,
    out: &mut SliceMut<'_, T>,
) -> Result<(), CudaError> {
    let (d, device) = (weight.len(), function.device);
    let (width, rows) = (count("the width", d)?, count("the number of rows", out.len() / d.max(1))?);
    weight.check("the norm's weight", d, device)?;
    out.check("the normed rows", matrix("the normed rows", rows as usize, d)?, device)?;
    weight.check_alignment("the norm's weight", 16)?;
    out.check_alignment("the normed rows", 16)?;
    if out.is_empty() {
        return Ok(());
    }
    let mut launch = function.launch();
    launch
        .arg(&x)
        .arg(&y)
        .arg(&weight.address)
        .arg(&eps)
        .arg(&width)
        .arg(&1u32)
        .arg(&width)
        .arg(&out.address);
    // SAFETY: the arguments are those of the kernel, in its order; it touches `rows` rows of D elements of x, y and
    // out, and D of the weight, all found to be there, on this device and aligned. It reads y, and writes x, in the
    // variant with the residual alone, whose caller has borrowed x for writing, as every caller has `out`.
    unsafe { launch.launch(grid(rows, THREADS)) }.map(|_| ()).map_err(CudaError::driver("launching rms_norm"))
}

/// Without and with the residual sum, and without it for narrow rows.
pub(super) fn kernels<T: Element>() -> [Kernel; 3] {
    [(0, THREADS), (1, THREADS), (0, FEW_THREADS)].map(|(residual, threads)| {
        Kernel::new::<T>("rms_norm", include_str!("../../kernels/rms_norm.cu"))
            .define("RESIDUAL", residual)
            .define("THREADS", threads)
    })
}
