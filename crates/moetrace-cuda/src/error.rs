//! What can go wrong between here and a GPU.

use std::path::PathBuf;

use cudarc::driver::DriverError;

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
}

impl CudaError {
    /// For `map_err`: what was being done when the driver failed.
    pub(crate) fn driver(doing: &'static str) -> impl Fn(DriverError) -> Self {
        move |source| Self::Driver { doing, source }
    }
}

fn list(folders: &[PathBuf]) -> String {
    let folders: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
    if folders.is_empty() { "any named folder".to_owned() } else { folders.join(", ") }
}
