//! Settings for the GPUs that people have: how much of the memory a run may take, and how long texts may be.

use moetrace_cuda::Architecture;

use super::plan::GpuSpeed;

/// What a preset sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preset {
    /// As people ask for it.
    pub name: &'static str,
    /// What a driver's name for such a GPU holds, all of it; nothing matches a preset that is only asked for by name.
    pub in_name: &'static [&'static str],
    /// Bytes for weights, buffers and CUDA's own memory.
    pub limit: u64,
    /// Bytes of page-locked host memory, where the preset is asked for by name; else what the host has left.
    pub host: Option<u64>,
    /// Bytes of its memory.
    pub memory: u64,
    /// What kernels are compiled for.
    pub architecture: Architecture,
    /// How fast it is.
    pub speed: GpuSpeed,
    /// Most tokens of a text. Of effect only where the preset is asked for by name: it decides what a run holds, which
    /// must not depend on the GPU at hand.
    pub max_length: usize,
}

const GB: u64 = 1_000_000_000;

/// Rates of a GPU that passes were not measured on: datasheet figures of dense bf16 products with sums in f32 (TFLOP/s) and
/// of memory (GB/s), and what its bus was seen to carry (GB/s). A large product reaches 81 % of the datasheet on an H200
/// (798 of 989 TFLOP/s), which is taken for all.
const fn rates(matrix: u64, memory: u64, bus: u64) -> GpuSpeed {
    GpuSpeed { matrix: matrix * 810 * GB, memory: memory * GB, bus: bus * GB, measured: false }
}

// GeForce cards sum in f32 at half their rate; professional ones of the same chip do not. A PCIe bus of the fourth
// generation carries 24 GB/s from page-locked memory, one of the fifth 55 (measured on an H200).
const RTX_3090: GpuSpeed = rates(71, 936, 24);
const RTX_4090: GpuSpeed = rates(165, 1_008, 24);
const A6000: GpuSpeed = rates(155, 768, 24);
const A100_40: GpuSpeed = rates(312, 1_555, 24);
const A100_80: GpuSpeed = rates(312, 2_039, 24);
const H100: GpuSpeed = rates(989, 3_350, 55);
const H200: GpuSpeed = GpuSpeed { matrix: 798_000 * GB, memory: 4_800 * GB, bus: 55 * GB, measured: true };

/// Limits are those of the deployment guide that moetrace began with, where it has one.
pub const PRESETS: [Preset; 8] = [
    // The guide's: 20 of 24 GB, since such a card often drives a screen too, and 16 GB of the host.
    Preset {
        host: Some(16 * GB),
        ..preset("rtx3090", &["RTX 3090"], (20, 24), Architecture::Sm86, RTX_3090)
    },
    // The guide names the card without settings; it has the memory of an RTX 3090.
    preset("rtx4090", &["RTX 4090"], (20, 24), Architecture::Sm89, RTX_4090),
    // The guide's: 45 of 48 GB.
    preset("a6000", &["RTX A6000"], (45, 48), Architecture::Sm86, A6000),
    // The guide's: 38 of 40 GB.
    preset("a100-40", &["A100", "40GB"], (38, 40), Architecture::Sm80, A100_40),
    // The guide gives no limit: the same share, 95 %, of 80 GB.
    preset("a100-80", &["A100", "80GB"], (76, 80), Architecture::Sm80, A100_80),
    // Not in the guide: 95 % of 80 GB, and of 141 GB.
    preset("h100", &["H100"], (76, 80), Architecture::Sm90a, H100),
    preset("h200", &["H200"], (134, 141), Architecture::Sm90a, H200),
    // The guide's setting for little memory: 16 GB and 24 GB of the host, texts of 256 tokens. It names no card; an RTX
    // 3090's speed is taken.
    Preset {
        host: Some(24 * GB),
        max_length: 256,
        ..preset("low-memory", &[], (16, 16), Architecture::Sm86, RTX_3090)
    },
];

const fn preset(
    name: &'static str,
    in_name: &'static [&'static str],
    (limit, memory): (u64, u64),
    architecture: Architecture,
    speed: GpuSpeed,
) -> Preset {
    let (limit, memory) = (limit * GB, memory * GB);
    Preset { name, in_name, limit, host: None, memory, architecture, speed, max_length: 512 }
}

impl GpuSpeed {
    /// For a GPU that no preset knows: an RTX A6000's, which lies in the middle.
    pub const UNKNOWN: Self = A6000;
}

impl Preset {
    /// The preset of a name.
    pub fn named(name: &str) -> Option<&'static Self> {
        PRESETS.iter().find(|preset| preset.name == name)
    }

    /// The preset of a GPU, by what its driver calls it.
    pub fn of_gpu(name: &str) -> Option<&'static Self> {
        let matches = |preset: &&Self| {
            !preset.in_name.is_empty() && preset.in_name.iter().all(|part| name.contains(part))
        };
        PRESETS.iter().find(matches)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_known_by_the_names_that_drivers_give_them() {
        let of = |name| Preset::of_gpu(name).map(|preset| preset.name);
        for (name, expected) in [
            ("NVIDIA GeForce RTX 3090", Some("rtx3090")),
            ("NVIDIA GeForce RTX 3090 Ti", Some("rtx3090")),
            ("NVIDIA GeForce RTX 4090", Some("rtx4090")),
            ("NVIDIA RTX A6000", Some("a6000")),
            ("NVIDIA A100-SXM4-40GB", Some("a100-40")),
            ("NVIDIA A100-PCIE-40GB", Some("a100-40")),
            ("NVIDIA A100-SXM4-80GB", Some("a100-80")),
            ("NVIDIA A100 80GB PCIe", Some("a100-80")),
            ("NVIDIA H100 80GB HBM3", Some("h100")),
            ("NVIDIA H200", Some("h200")),
            ("NVIDIA RTX 6000 Ada Generation", None),
            ("NVIDIA L40S", None),
            ("", None),
        ] {
            assert_eq!(of(name), expected, "{name}");
        }
    }

    #[test]
    fn each_name_is_there_once_and_finds_its_preset() {
        for preset in &PRESETS {
            assert_eq!(Preset::named(preset.name), Some(preset));
            assert!(preset.limit >= 16 * GB && preset.max_length >= 256);
        }
        assert_eq!(Preset::named("gtx1080"), None);
    }
}
