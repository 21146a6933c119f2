//! What computes: the processor or a GPU, which, with how much of whose memory, in passes of what size.

mod fit;
mod found;
mod host;
mod limit;
mod map;
mod refused;

use std::path::Path;

use moetrace_cuda::CudaError;
use moetrace_model::Preset;

pub(crate) use self::fit::{Asked, Fit};
use self::found::NoGpu;
pub(crate) use self::found::{FoundGpu, GpuFacts, cuda_libraries};
pub(crate) use self::host::HostMemory;
pub(crate) use self::limit::{MemoryLimits, memory_limits};
pub(crate) use self::map::DeviceMap;
use crate::failure::{Failure, code};
use crate::show::bytes;

/// `--device`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeviceArg {
    /// The GPU with most free memory if one can be used, else the processor.
    Auto,
    /// The processor.
    Cpu,
    /// A GPU: the one of this number, or the one with most free memory.
    Cuda(Option<usize>),
}

/// What was chosen, and a line that says so where there was a choice.
pub(crate) struct Choice {
    /// The GPU; without one, the processor.
    pub(crate) gpu: Option<FoundGpu>,
    /// Which and why, for people.
    pub(crate) line: Option<String>,
}

/// Reads `auto`, `cpu`, `cuda` or `cuda:N`.
pub(crate) fn device_arg(text: &str) -> Result<DeviceArg, String> {
    let refused = || "expected auto, cpu, cuda or cuda:N with a GPU's number".to_owned();
    match text {
        "auto" => Ok(DeviceArg::Auto),
        "cpu" => Ok(DeviceArg::Cpu),
        "cuda" => Ok(DeviceArg::Cuda(None)),
        _ => {
            let number = text.strip_prefix("cuda:").filter(|n| n.bytes().all(|byte| byte.is_ascii_digit()));
            number.and_then(|n| n.parse().ok()).map(|n| DeviceArg::Cuda(Some(n))).ok_or_else(refused)
        }
    }
}

impl Choice {
    /// Looks for what was asked for; `kernels` is where compiled kernels are kept. Automatic never fails: without a
    /// driver it takes the processor and is silent, with one that cannot be used it says why.
    ///
    /// `limited` is the GPU that `--max-memory` is for: taken where `--device` names none.
    pub(crate) fn new(
        device: DeviceArg,
        limited: Option<usize>,
        kernels: Option<&Path>,
    ) -> Result<Self, Failure> {
        let ordinal = match device {
            DeviceArg::Cpu => return Ok(Self { gpu: None, line: None }),
            DeviceArg::Cuda(Some(ordinal)) => Some(ordinal),
            DeviceArg::Auto | DeviceArg::Cuda(None) => limited,
        };
        match FoundGpu::find(ordinal, kernels) {
            Ok(gpu) => Ok(Self { line: Some(used(&gpu, ordinal)), gpu: Some(gpu) }),
            Err(why) if device != DeviceArg::Auto => Err(impossible(device, &why)),
            Err(NoGpu::NoDriver(_)) => Ok(Self { gpu: None, line: None }),
            Err(why) => Ok(Self { gpu: None, line: Some(processor_instead(&why.to_string())) }),
        }
    }
}

/// A GPU of a kind, as if it were here and all of it free.
pub(crate) fn imagined(preset: &Preset) -> GpuFacts {
    GpuFacts { ordinal: 0, name: preset.name.to_owned(), free: preset.memory, total: preset.memory, of: 1 }
}

/// Said where the processor is taken though there is a driver.
pub(crate) fn processor_instead(why: &str) -> String {
    let first = why.lines().next().unwrap_or_default();
    format!("no GPU is used: {first}; --device cuda makes this an error, --device cpu does not look for one")
}

fn used(gpu: &FoundGpu, ordinal: Option<usize>) -> String {
    let facts = &gpu.facts;
    let most = if ordinal.is_none() && facts.of > 1 {
        format!(", the most of {} GPUs", facts.of)
    } else {
        String::new()
    };
    let (number, name) = (facts.ordinal, &facts.name);
    format!("GPU {number} is used: {name}, {} of {} free{most}", bytes(facts.free), bytes(facts.total))
}

/// A GPU was asked for and cannot be had.
fn impossible(device: DeviceArg, why: &NoGpu) -> Failure {
    let asked = match device {
        DeviceArg::Cuda(Some(number)) => format!("cuda:{number}"),
        _ => "cuda".to_owned(),
    };
    let what = format!("--device {asked} cannot be used: {}", why.to_string().trim_end());
    Failure::new(code::CONFIG, "E-DEVICE", what, no_gpu_help(why))
}

/// What to do where no GPU can be used.
pub(crate) fn no_gpu_help(why: &NoGpu) -> &'static str {
    match why {
        NoGpu::NoDriver(_) => "install the NVIDIA driver, or compute on the processor: --device cpu",
        NoGpu::Failed(CudaError::LibraryMissing { .. } | CudaError::LibraryBroken { .. }) => {
            "name a toolkit with CUDA_HOME or activate a Python environment that has it, or use --device cpu"
        }
        NoGpu::Failed(CudaError::DriverBelow { .. }) => {
            "install a newer NVIDIA driver, or compute on the processor: --device cpu"
        }
        NoGpu::Failed(CudaError::NoSuchDevice { .. }) => "--device cuda takes the GPU with most free memory",
        NoGpu::Failed(CudaError::Cache { .. }) => "set MOETRACE_CACHE to a folder that can be written",
        _ => "'nvidia-smi' shows driver and GPUs; --device cpu computes on the processor",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_strictly() {
        assert_eq!(device_arg("auto"), Ok(DeviceArg::Auto));
        assert_eq!(device_arg("cpu"), Ok(DeviceArg::Cpu));
        assert_eq!(device_arg("cuda"), Ok(DeviceArg::Cuda(None)));
        assert_eq!(device_arg("cuda:12"), Ok(DeviceArg::Cuda(Some(12))));
        for text in
            ["", "gpu", "CUDA", "cuda:", "cuda:-1", "cuda:+1", "cuda:1 ", "cuda:99999999999999999999999"]
        {
            assert!(device_arg(text).unwrap_err().contains("cuda:N"), "{text}");
        }
    }

    #[test]
    fn what_is_said_is_one_line() {
        let line = processor_instead("kernel x does not compile:\nline 1\nline 2");
        assert_eq!(line.lines().count(), 1);
        assert!(line.contains("kernel x does not compile") && !line.contains("line 1"), "{line}");
    }
}
