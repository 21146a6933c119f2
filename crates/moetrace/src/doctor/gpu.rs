//! GPUs, and everything that has to be here for one of them to compute.

use std::panic::{AssertUnwindSafe, catch_unwind};

use moetrace_cuda::{CudaError, Libraries, ListedGpu};

use super::libraries::{self, DriverFacts};
use super::{Check, State};
use crate::device::{DeviceArg, FoundGpu, cuda_libraries, no_gpu_help};
use crate::prepare::cache;
use crate::show::bytes;

const LINES: [&str; 4] = ["gpu", "driver", "nvrtc", "cublas"];

/// The lines about GPUs. They fail where one was asked for; else the processor computes, and they are notes.
pub(super) fn checks(device: DeviceArg) -> Vec<Check> {
    let ordinal = match device {
        DeviceArg::Cpu => {
            return LINES.map(|id| Check::ok(id, "not looked for: the processor was asked for")).into();
        }
        DeviceArg::Auto => None,
        DeviceArg::Cuda(ordinal) => ordinal,
    };
    let missing = if device == DeviceArg::Auto { State::Note } else { State::Fails };
    let libraries = cuda_libraries();
    let driver = guarded(|| DriverFacts::of(libraries.driver()?));
    let version = driver.as_ref().ok().map(|facts| facts.version);
    let nvrtc = guarded(|| Ok(libraries.nvrtc()?.version()));
    let cublas = guarded(|| Ok(libraries.cublaslt()?.version()));
    vec![
        gpu(&libraries, ordinal, missing),
        libraries::driver(&driver, missing),
        libraries::nvrtc(&nvrtc, version, missing),
        libraries::cublas(&cublas, version, missing),
    ]
}

/// Which GPUs there are, and whether one of them computes: a kernel is compiled for it and loaded.
fn gpu(libraries: &Libraries, ordinal: Option<usize>, missing: State) -> Check {
    let kernels = cache().ok().map(|cache| cache.join("kernels"));
    match FoundGpu::find(ordinal, kernels.as_deref()) {
        Ok(found) => {
            let facts = &found.facts;
            let others = if facts.of > 1 { format!(", one of {}", facts.of) } else { String::new() };
            let (free, total) = (bytes(facts.free), bytes(facts.total));
            Check::ok(
                "gpu",
                format!(
                    "{}, {}: {free} of {total} free, a kernel was tried{others}",
                    facts.ordinal, facts.name
                ),
            )
        }
        Err(why) => {
            let listed = guarded(|| ListedGpu::all(libraries.driver()?)).unwrap_or_default();
            let named = |names: String, gpu: &ListedGpu| format!("{names}{}, {}; ", gpu.ordinal, gpu.name);
            let names = listed.iter().fold(String::new(), named);
            let first = first_line(&why.to_string());
            let (found, fix) = if missing == State::Note {
                (format!("{names}none can be used, the processor computes: {first}"), ONLY_FOR_GPUS)
            } else {
                (format!("{names}none can be used: {first}"), no_gpu_help(&why))
            };
            Check::not_ok("gpu", missing, found, fix)
                .needing("compute capability 8.0 (RTX 30, A100) or newer")
        }
    }
}

const ONLY_FOR_GPUS: &str = "nothing for the processor; for a GPU, what the lines that follow say";

/// What CUDA answers, or why it does not, on one line. Symbols that a library lacks are a panic in cudarc.
fn guarded<T>(ask: impl FnOnce() -> Result<T, CudaError>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(ask)) {
        // What brings it stands in the fix, in a version that goes with the driver.
        Ok(Err(CudaError::LibraryMissing { library, folders, .. })) => {
            let folders: Vec<String> =
                folders.iter().map(|folder| format!(", nor in {}", folder.display())).collect();
            Err(format!("{library} was not found where the system looks{}", folders.concat()))
        }
        Ok(answer) => answer.map_err(|error| first_line(&error.to_string())),
        Err(_) => Err("a library lacks what CUDA's of that name has".to_owned()),
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_looked_for_where_the_processor_was_asked_for() {
        let checks = checks(DeviceArg::Cpu);
        assert_eq!(checks.iter().map(|check| check.id).collect::<Vec<_>>(), LINES);
        assert!(checks.iter().all(|check| check.state == State::Ok));
    }

    #[test]
    fn a_library_that_panics_is_a_reason() {
        let broken = guarded::<()>(|| std::panic::panic_any("Missing symbol"));
        assert!(broken.unwrap_err().contains("lacks"));
    }
}
