//! What can go wrong between here and a GPU.

use std::path::PathBuf;

use cudarc::driver::DriverError;
use cudarc::driver::sys::CUresult;

use crate::Version;

/// Everything that this crate refuses or fails at, with what was found and what was expected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the message of each variant says what its fields are")]
pub enum CudaError {
    #[error("{library} was not found in {} or where the system looks; it comes with {brings}", list(.folders))]
    LibraryMissing { library: &'static str, folders: Vec<PathBuf>, brings: &'static str },
    #[error("{} cannot be loaded: {source}", .path.display())]
    LibraryBroken { path: PathBuf, source: libloading::Error },
    #[error("GPU {ordinal} was asked for, there are {found}")]
    NoSuchDevice { ordinal: usize, found: usize },
    #[error("{name} has compute capability {}.{}, expected at least 8.0 (RTX 30, A100 or newer)", .found.0, .found.1)]
    DeviceTooOld { name: String, found: (i32, i32) },
    #[error("the driver knows CUDA {found}, expected {expected} or newer")]
    DriverBelow { found: Version, expected: Version },
    #[error("{doing}: {source}")]
    Driver { doing: &'static str, source: DriverError },
    #[error(
        "the driver knows CUDA {driver}, NVRTC is of CUDA {nvrtc}: use a newer driver, or an NVRTC of {driver} or older"
    )]
    DriverTooOld { driver: Version, nvrtc: Version },

    #[error("kernel {kernel} does not compile with {options}:\n{log}")]
    Compile { kernel: String, options: String, log: String },
    #[error("NVRTC, {doing}: {code}")]
    Nvrtc { doing: &'static str, code: String },
    #[error("cuBLASLt, {doing}: {code}")]
    Product { doing: &'static str, code: String },
    #[error("{}: {source}", .path.display())]
    Cache { path: PathBuf, source: std::io::Error },

    #[error("{what} has {found} elements, expected {expected}")]
    Length { what: &'static str, found: usize, expected: usize },
    #[error("{what} is {found}, expected {expected}")]
    Value { what: &'static str, found: usize, expected: &'static str },
    #[error("elements {start}..{end} of a buffer of {length} were asked for")]
    Range { start: usize, end: usize, length: usize },
    #[error("{what} begins at a place that is not a multiple of {expected} bytes")]
    Alignment { what: &'static str, expected: u64 },
    #[error("{what} lies on another device")]
    OtherDevice { what: &'static str },
    #[error("{what} needs {needs}, which is not here")]
    Unsupported { what: &'static str, needs: &'static str },
}

/// What is being done when host memory is page-locked.
pub(crate) const PAGE_LOCKING: &str = "allocating page-locked memory";

impl CudaError {
    /// Whether memory of the GPU ran out.
    pub fn is_out_of_memory(&self) -> bool {
        self.lacks_memory() && !self.is_host_memory_refused()
    }

    /// Whether host memory could not be page-locked.
    pub fn is_host_memory_refused(&self) -> bool {
        self.lacks_memory() && matches!(self, Self::Driver { doing: PAGE_LOCKING, .. })
    }

    fn lacks_memory(&self) -> bool {
        matches!(self, Self::Driver { source, .. } if source.0 == CUresult::CUDA_ERROR_OUT_OF_MEMORY)
    }

    /// Whether the GPU is lost to this process: nothing it is asked for works any more until the process ends.
    pub fn is_device_lost(&self) -> bool {
        use CUresult as Code;
        let Self::Driver { source, .. } = self else { return false };
        matches!(
            source.0,
            Code::CUDA_ERROR_ILLEGAL_ADDRESS
                | Code::CUDA_ERROR_LAUNCH_FAILED
                | Code::CUDA_ERROR_LAUNCH_TIMEOUT
                | Code::CUDA_ERROR_ECC_UNCORRECTABLE
                | Code::CUDA_ERROR_HARDWARE_STACK_ERROR
                | Code::CUDA_ERROR_ILLEGAL_INSTRUCTION
                | Code::CUDA_ERROR_MISALIGNED_ADDRESS
                | Code::CUDA_ERROR_INVALID_ADDRESS_SPACE
                | Code::CUDA_ERROR_INVALID_PC
                | Code::CUDA_ERROR_DEVICE_UNAVAILABLE
                | Code::CUDA_ERROR_CONTEXT_IS_DESTROYED
                | Code::CUDA_ERROR_UNKNOWN
        )
    }

    /// Whether the driver works and finds no GPU, which to it is an error.
    pub(crate) fn is_no_device(error: DriverError) -> bool {
        error.0 == CUresult::CUDA_ERROR_NO_DEVICE
    }

    /// For `map_err`: what was being done when the driver failed.
    pub(crate) fn driver(doing: &'static str) -> impl Fn(DriverError) -> Self {
        move |source| Self::Driver { doing, source }
    }
}

fn list(folders: &[PathBuf]) -> String {
    let folders: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
    if folders.is_empty() { "any named folder".to_owned() } else { folders.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_memory_and_a_lost_gpu_are_told_from_other_failures() {
        let failed = |code| CudaError::driver("trying")(DriverError(code));
        let full = failed(CUresult::CUDA_ERROR_OUT_OF_MEMORY);
        let lost = failed(CUresult::CUDA_ERROR_LAUNCH_FAILED);
        let other = failed(CUresult::CUDA_ERROR_INVALID_VALUE);
        assert_eq!([&full, &lost, &other].map(CudaError::is_out_of_memory), [true, false, false]);
        assert_eq!([&full, &lost, &other].map(CudaError::is_device_lost), [false, true, false]);
    }
}
