//! Compiled kernels on a device.

use std::sync::Arc;

use cudarc::driver::sys::CUresult;
use cudarc::driver::{CudaFunction, CudaStream, LaunchArgs, LaunchConfig};
use cudarc::nvrtc::Ptx;

use crate::memory::DeviceId;
use crate::{Compiler, CudaError, Device, Kernel, Version};

/// A kernel that can be launched on the stream of one device.
#[derive(Debug, Clone)]
pub(crate) struct Function {
    kernel: CudaFunction,
    stream: Arc<CudaStream>,
    pub(crate) device: DeviceId,
    pub(crate) multiprocessors: u32,
}

impl Function {
    /// Compiles a kernel, or reads it from the cache, and loads it.
    pub(crate) fn load(device: &Device, compiler: &Compiler, source: &Kernel) -> Result<Self, CudaError> {
        let ptx = compiler.compile(source, device.architecture())?;
        let failed = CudaError::driver("loading a kernel");
        let module = device.context.load_module(Ptx::from_src(ptx)).map_err(|error| match error.0 {
            CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION => too_old(compiler),
            _ => failed(error),
        })?;
        let kernel = module.load_function(source.name()).map_err(failed)?;
        let (stream, multiprocessors) = (Arc::clone(&device.stream), device.multiprocessors());
        Ok(Self { kernel, stream, device: device.id, multiprocessors })
    }

    /// A launch whose arguments are still to be named.
    pub(crate) fn launch(&self) -> LaunchArgs<'_> {
        self.stream.launch_builder(&self.kernel)
    }
}

/// Blocks in a row, each with so many threads in a row.
pub(crate) fn grid(blocks: u32, threads: u32) -> LaunchConfig {
    LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (threads, 1, 1), shared_mem_bytes: 0 }
}

/// A count that kernels keep in 32 bits, with room for one more step.
pub(crate) fn count(what: &'static str, found: usize) -> Result<u32, CudaError> {
    match i32::try_from(found) {
        Ok(small) => Ok(small.unsigned_abs()),
        Err(_) => Err(CudaError::Value { what, found, expected: "less than 2^31" }),
    }
}

/// `rows * width`, the elements of a matrix.
pub(crate) fn matrix(what: &'static str, rows: usize, width: usize) -> Result<usize, CudaError> {
    rows.checked_mul(width).ok_or(CudaError::Value { what, found: rows, expected: "rows that fit in memory" })
}

fn too_old(compiler: &Compiler) -> CudaError {
    let mut number = 0;
    // SAFETY: a place for one number; the driver is loaded, since a context is open.
    let _ = unsafe { cudarc::driver::sys::cuDriverGetVersion(&raw mut number) };
    let driver = Version { major: number / 1000, minor: number % 1000 / 10 };
    CudaError::DriverTooOld { driver, nvrtc: compiler.nvrtc().version() }
}
