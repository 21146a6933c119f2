//! The scales of 4-bit weights to 8 bits.

use cudarc::driver::PushKernelArg as _;

use crate::launch::{Function, count, grid, matrix};
use crate::{Buffer, Compiler, CudaError, Device, Kernel, Slice, SliceMut};

/// Threads of a block, which takes one tensor.
const THREADS: u32 = 1024;
/// Scales that share a scale of their own: what every library writes.
const NESTED_BLOCK: usize = 256;
const MAP: usize = 256;

/// Room for doubly quantised scales.
#[derive(Debug)]
pub struct Nf4DoubleScales<'a> {
    /// `[tensors, blocks]`.
    pub codes: SliceMut<'a, u8>,
    /// `[tensors, ceil(blocks / 256)]`.
    pub nested: SliceMut<'a, f32>,
    /// `[tensors]`: the mean of each tensor's scales.
    pub offsets: SliceMut<'a, f32>,
}

/// Quantises the scales of 4-bit tensors, bit-equal to `moetrace_nf4::DoubleQuantised`.
#[derive(Debug)]
pub struct Nf4Double {
    function: Function,
    map: Buffer<f32>,
}

impl Nf4Double {
    /// Compiles the kernel and uploads the values of the 256 codes, which ascend.
    ///
    /// # Errors
    /// What [`Compiler::compile`] fails with, [`CudaError::DriverTooOld`], [`CudaError::Driver`].
    pub fn new(device: &Device, compiler: &Compiler, map: &[f32; MAP]) -> Result<Self, CudaError> {
        Ok(Self { function: Function::load(device, compiler, &kernel())?, map: device.upload(map)? })
    }

    /// Scales of the scales of a tensor with so many blocks.
    pub fn nested_blocks(blocks: usize) -> usize {
        blocks.div_ceil(NESTED_BLOCK)
    }

    /// Queues the quantising of `absmax` `[tensors, blocks]`, the scales of tensors of one size. They are finite:
    /// [`Nf4Quantised::refused`](crate::Nf4Quantised::refused) tells which tensors' are not, and those get codes that
    /// mean nothing.
    ///
    /// # Errors
    /// [`CudaError::Length`], [`CudaError::Value`], [`CudaError::OtherDevice`] for arguments that do not fit;
    /// [`CudaError::Driver`].
    pub fn run(
        &self,
        absmax: Slice<'_, f32>,
        blocks: usize,
        to: &mut Nf4DoubleScales<'_>,
    ) -> Result<(), CudaError> {
        let (tensors, device) = (to.offsets.len(), self.function.device);
        let nested = Self::nested_blocks(blocks);
        absmax.check("the 4-bit scales", matrix("the 4-bit scales", tensors, blocks)?, device)?;
        to.codes.check("the 4-bit scales' codes", tensors * blocks, device)?;
        to.nested.check("the 4-bit scales' scales", tensors * nested, device)?;
        to.offsets.check("the 4-bit scales' offsets", tensors, device)?;
        let grid = grid(count("the number of tensors", tensors)?, THREADS);
        let (blocks, nested) =
            (count("the number of scales", blocks)?, count("the number of scales", nested)?);
        if tensors == 0 {
            return Ok(());
        }
        let map = self.map.all().address;
        let mut launch = self.function.launch();
        launch.arg(&absmax.address).arg(&map).arg(&blocks).arg(&nested);
        launch.arg(&to.codes.address).arg(&to.nested.address).arg(&to.offsets.address);
        // SAFETY: the arguments are those of the kernel, in its order; for each tensor it reads `blocks` scales and writes
        // as many codes, `nested` scales and an offset, and it reads the map, all found to be there and on this device;
        // `to` is borrowed for writing.
        unsafe { launch.launch(grid) }.map(|_| ()).map_err(CudaError::driver("launching nf4_double"))
    }
}

/// It handles no elements; any of their types will do.
pub(super) fn kernel() -> Kernel {
    Kernel::new::<f32>("nf4_double", include_str!("../../kernels/nf4_double.cu"))
        .define("THREADS", THREADS)
        .define("NESTED_BLOCK", NESTED_BLOCK as u32)
        .define("MAP", MAP as u32)
}
