//! Settings for the GPUs that people have: how much of the memory a run may take, and how long texts may be.

/// What a preset sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preset {
    /// As people ask for it.
    pub name: &'static str,
    /// What a driver's name for such a GPU holds, all of it; nothing matches a preset that is only asked for by name.
    pub in_name: &'static [&'static str],
    /// Bytes for weights, buffers and CUDA's own memory.
    pub limit: u64,
    /// Most tokens of a text. Of effect only where the preset is asked for by name: it decides what a run holds, which
    /// must not depend on the GPU at hand.
    pub max_length: usize,
}

const GB: u64 = 1_000_000_000;

/// Limits are those of the deployment guide that moetrace began with, where it has one.
#[rustfmt::skip]
pub const PRESETS: [Preset; 8] = [
    // The guide's: 20 of 24 GB, since such a card often drives a screen too.
    Preset { name: "rtx3090", in_name: &["RTX 3090"], limit: 20 * GB, max_length: 512 },
    // The guide names the card without settings; it has the memory of an RTX 3090.
    Preset { name: "rtx4090", in_name: &["RTX 4090"], limit: 20 * GB, max_length: 512 },
    // The guide's: 45 of 48 GB.
    Preset { name: "a6000", in_name: &["RTX A6000"], limit: 45 * GB, max_length: 512 },
    // The guide's: 38 of 40 GB.
    Preset { name: "a100-40", in_name: &["A100", "40GB"], limit: 38 * GB, max_length: 512 },
    // The guide gives no limit: the same share, 95 %, of 80 GB.
    Preset { name: "a100-80", in_name: &["A100", "80GB"], limit: 76 * GB, max_length: 512 },
    // Not in the guide: 95 % of 80 GB, and of 141 GB.
    Preset { name: "h100", in_name: &["H100"], limit: 76 * GB, max_length: 512 },
    Preset { name: "h200", in_name: &["H200"], limit: 134 * GB, max_length: 512 },
    // The guide's setting for little memory: 16 GB, texts of 256 tokens.
    Preset { name: "low-memory", in_name: &[], limit: 16 * GB, max_length: 256 },
];

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
