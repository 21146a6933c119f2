//! Compiled kernels on a device.

use std::sync::Arc;

use cudarc::driver::sys::{CUfunction_attribute, CUresult};
use cudarc::driver::{CudaFunction, CudaStream, LaunchArgs, LaunchConfig, result};
use cudarc::nvrtc::Ptx;

use crate::memory::DeviceId;
use crate::{Compiler, CudaError, Device, Kernel, SliceMut, Version};

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

    /// Allows launches with so many bytes of dynamic shared memory, for which more than 48 KB must be asked.
    pub(crate) fn with_shared_memory(self, bytes: u32) -> Result<Self, CudaError> {
        let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        let failed = CudaError::driver("asking for shared memory");
        self.kernel.set_attribute(attribute, bytes.cast_signed()).map_err(failed)?;
        Ok(self)
    }

    /// A launch whose arguments are still to be named.
    pub(crate) fn launch(&self) -> LaunchArgs<'_> {
        self.stream.launch_builder(&self.kernel)
    }

    /// Queues the setting of all bits of integers.
    pub(crate) fn set_all_bits<T>(&self, to: &mut SliceMut<'_, T>) -> Result<(), CudaError> {
        let failed = CudaError::driver("setting memory on the GPU");
        self.stream.context().bind_to_thread().map_err(&failed)?;
        let bytes = to.len() * size_of::<T>();
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: `to` has so many bytes and is borrowed for writing; the launcher has found it on this device.
        unsafe { result::memset_d8_async(to.address, 0xFF, bytes, self.stream.cu_stream()) }.map_err(failed)
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
