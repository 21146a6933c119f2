//! How a run is laid out, by the memory that it may take of a GPU and of the host.

use moetrace_model::{
    Budget, CudaMemory, CudaMemoryPlan, GpuSpeed, MOST_PASS, Place, Placement, Planned, Preset,
    SpeedEstimate, Wishes,
};

use super::found::GpuFacts;
use super::host::HostMemory;
use super::limit::MemoryLimits;
use super::map::DeviceMap;
use super::refused::{beyond_the_largest, not_on_disk, other_gpu, refused};
use crate::failure::Failure;

/// What the user asked for, and what there is besides the GPU.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// `--max-memory`.
    pub(crate) limits: Option<MemoryLimits>,
    /// `--preset`, or the kind of a GPU that is not here.
    pub(crate) preset: Option<&'static Preset>,
    /// `--tokens-per-pass`, or what `--batch-size` makes it.
    pub(crate) tokens: Option<usize>,
    /// Most tokens of a text, which is never cut into two passes.
    pub(crate) max_length: usize,
    /// `--device-map` and `--cpu-offload`.
    pub(crate) map: &'a DeviceMap,
    /// Whether one of the two says anything.
    pub(crate) holds_layers: bool,
    /// Whether weights can be read from the checkpoint in every pass.
    pub(crate) reads_disk: bool,
    /// The host's memory.
    pub(crate) host: HostMemory,
}

impl Asked<'_> {
    /// Whether the user said nothing about memory or passes, so that another device may be taken.
    pub(crate) fn leaves_all_open(self) -> bool {
        self.limits.is_none() && self.preset.is_none() && self.tokens.is_none() && !self.holds_layers
    }
}

/// Most bytes that a run may take, and who says so, if not the user's own `--max-memory`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Of the GPU.
    pub(crate) device: u64,
    /// Who set it.
    pub(crate) device_by: Option<String>,
    /// Of the host.
    pub(crate) host: u64,
    /// Who set it.
    pub(crate) host_by: Option<String>,
}

impl Limits {
    /// Who limits the GPU's memory.
    pub(crate) fn device_source(&self) -> &str {
        self.device_by.as_deref().unwrap_or("--max-memory")
    }

    /// Who limits the host's.
    pub(crate) fn host_source(&self) -> &str {
        self.host_by.as_deref().unwrap_or("--max-memory")
    }
}

/// How a run fits onto a GPU.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fit {
    /// The preset, asked for or known by the GPU's name.
    pub(crate) preset: Option<&'static Preset>,
    /// Most bytes that the run may take.
    pub(crate) limits: Limits,
    /// Tokens of a pass.
    pub(crate) tokens_per_pass: usize,
    /// Where weights and hidden states live.
    pub(crate) placement: Placement,
    /// What the run takes.
    pub(crate) memory: CudaMemory,
    /// How fast it should be.
    pub(crate) speed: SpeedEstimate,
}

impl Fit {
    /// The layout that should be fastest within the limits; refused, before anything is loaded, if none is.
    pub(crate) fn new(plan: &CudaMemoryPlan<'_>, gpu: &GpuFacts, asked: Asked<'_>) -> Result<Self, Failure> {
        let known = Preset::of_gpu(&gpu.name).or_else(|| Preset::named(&gpu.name));
        let preset = asked.preset.or(known);
        if let Some(named) = asked.map.gpu.filter(|named| *named != gpu.ordinal) {
            return Err(other_gpu("--device-map", named, gpu.ordinal));
        }
        if let Some(layer) = asked.map.layers.iter().position(|place| *place == Some(Place::Disk))
            && !asked.reads_disk
        {
            return Err(not_on_disk(layer));
        }
        let limits = limits(gpu, &asked, preset)?;
        if let Some(tokens) = asked.tokens.filter(|tokens| *tokens > MOST_PASS) {
            return Err(beyond_the_largest(tokens));
        }
        let wishes = Wishes {
            tokens_per_pass: asked.tokens,
            longest: asked.max_length,
            offload: asked.map.offload,
            layers: asked.map.layers.clone(),
            embedding: asked.map.embedding,
            reads_disk: asked.reads_disk,
        };
        // The card at hand decides how fast it is, whatever preset limits it.
        let speed = known.or(preset).map_or(GpuSpeed::UNKNOWN, |preset| preset.speed);
        let budget = Budget { device: limits.device, host: limits.host };
        let planned = plan.place(speed, budget, &wishes);
        let Planned { placement, memory, speed } =
            planned.map_err(|shortfall| refused(&shortfall, gpu, &asked, &limits))?;
        // A text that is longer than a pass is a pass of its own.
        let tokens_per_pass = asked.tokens.unwrap_or(usize::MAX).min(placement.tokens_per_pass);
        Ok(Self { preset, limits, tokens_per_pass, placement, memory, speed })
    }

    /// Layers whose weights live in a place.
    pub(crate) fn layers(&self, place: Place) -> Vec<usize> {
        let layers = self.placement.layers.iter().enumerate();
        layers.filter(|(_, of)| **of == place).map(|(layer, _)| layer).collect()
    }
}

/// What a run may take, and who says so: never more than is free.
fn limits(gpu: &GpuFacts, asked: &Asked<'_>, preset: Option<&'static Preset>) -> Result<Limits, Failure> {
    let given = asked.limits.unwrap_or_default();
    if let Some(named) = given.gpu.filter(|named| *named != gpu.ordinal) {
        return Err(other_gpu("--max-memory", named, gpu.ordinal));
    }
    let (device, device_by) = match (given.device, preset) {
        (Some(amount), _) => (amount.of(gpu.total), None),
        (None, Some(preset)) => (preset.limit, Some(format!("preset {}", preset.name))),
        (None, None) => (u64::MAX, None),
    };
    let (device, device_by) =
        if device > gpu.free { (gpu.free, Some("free memory".to_owned())) } else { (device, device_by) };
    // A preset that is known by the GPU's name says nothing of the host that it is in.
    let of_preset = asked.preset.and_then(|preset| preset.host.map(|host| (preset.name, host)));
    let (host, host_by) = match (given.host, of_preset) {
        (Some(amount), _) => (amount.of(asked.host.total), None),
        (None, Some((name, host))) => (host, Some(format!("preset {name}"))),
        (None, None) => (asked.host.usable(), Some("what the host has left".to_owned())),
    };
    let (host, host_by) = if host > asked.host.available {
        (asked.host.usable(), Some("what the host has left".to_owned()))
    } else {
        (host, host_by)
    };
    Ok(Limits { device, device_by, host, host_by })
}

#[cfg(test)]
mod tests {
    use moetrace_cuda::Architecture;
    use moetrace_model::{CudaSettings, ModelConfig, Precision};

    use super::*;
    use crate::device::limit::memory_limits;

    const HOST: HostMemory = HostMemory { total: 64_000_000_000, available: 60_000_000_000 };

    fn asked(map: &DeviceMap) -> Asked<'_> {
        let holds_layers = *map != DeviceMap::default();
        let (limits, preset, tokens, max_length) = (None, None, None, 512);
        Asked { limits, preset, tokens, max_length, map, holds_layers, reads_disk: true, host: HOST }
    }

    /// DeepSeek-MoE-16B.
    fn config() -> ModelConfig {
        let config = serde_json::json!({
            "model_type": "deepseek", "hidden_size": 2048, "num_hidden_layers": 28, "num_attention_heads": 16,
            "num_key_value_heads": 16, "intermediate_size": 10944, "moe_intermediate_size": 1408,
            "n_routed_experts": 64, "n_shared_experts": 2, "num_experts_per_tok": 6, "first_k_dense_replace": 1,
            "moe_layer_freq": 1, "vocab_size": 102_400, "norm_topk_prob": false, "hidden_act": "silu",
            "rms_norm_eps": 1e-6, "rope_theta": 10000, "scoring_func": "softmax"
        });
        ModelConfig::parse(config.to_string().as_bytes(), "config.json").unwrap()
    }

    fn fit(precision: Precision, gpu: &GpuFacts, asked: Asked<'_>) -> Result<Fit, Failure> {
        let (config, settings) = (config(), CudaSettings { precision, ..CudaSettings::default() });
        Fit::new(&CudaMemoryPlan::new(&config, None, &settings, Architecture::Sm90a).unwrap(), gpu, asked)
    }

    fn gpu(name: &str, free: u64, total: u64) -> GpuFacts {
        let (free, total) = (free * 1_000_000_000, total * 1_000_000_000);
        GpuFacts { ordinal: 0, name: name.to_owned(), free, total, of: 1 }
    }

    #[test]
    fn a_card_with_room_gets_the_usual_pass_and_a_small_one_a_smaller() {
        let map = DeviceMap::default();
        let large = fit(Precision::Nf4, &gpu("NVIDIA H200", 150, 151), asked(&map)).unwrap();
        assert_eq!((large.preset, large.limits.device), (Preset::named("h200"), 134_000_000_000));
        assert_eq!(large.limits.device_by.as_deref(), Some("preset h200"));
        assert_eq!((large.tokens_per_pass, large.placement.tokens_per_chunk), (40_960, 40_960));
        let small = fit(Precision::Nf4, &gpu("NVIDIA RTX 4000", 11, 12), asked(&map)).unwrap();
        assert_eq!((small.preset, small.limits.device_source()), (None, "free memory"));
        assert!(
            (8192..40_960).contains(&small.tokens_per_pass) && small.placement.is_resident(),
            "{small:?}"
        );
        assert!(small.tokens_per_pass.is_multiple_of(512) && small.memory.total() <= small.limits.device);
    }

    #[test]
    fn a_flag_goes_before_the_preset_and_free_memory_before_both() {
        let card = gpu("NVIDIA GeForce RTX 3090", 24, 25);
        let map = DeviceMap::default();
        let of = |asked| fit(Precision::Nf4, &card, asked).unwrap().limits;
        let limited = |text| Asked { limits: Some(memory_limits(text).unwrap()), ..asked(&map) };
        assert_eq!(of(asked(&map)).device, 20_000_000_000);
        assert_eq!((of(limited("14GB")).device, of(limited("14GB")).device_by), (14_000_000_000, None));
        assert_eq!(of(limited("0=80%")).device, 20_000_000_000);
        let more = of(limited("90GB"));
        assert_eq!((more.device, more.device_source()), (24_000_000_000, "free memory"));
        let named = of(Asked { preset: Preset::named("low-memory"), ..asked(&map) });
        assert_eq!((named.device, named.host), (16_000_000_000, 24_000_000_000));
        assert_eq!(named.host_source(), "preset low-memory");
    }

    #[test]
    fn the_host_gives_what_it_has_left_unless_a_flag_or_a_preset_by_name_says_less() {
        let (card, map) = (gpu("NVIDIA GeForce RTX 3090", 24, 25), DeviceMap::default());
        let of = |asked| fit(Precision::Nf4, &card, asked).unwrap().limits;
        let limited = |text| Asked { limits: Some(memory_limits(text).unwrap()), ..asked(&map) };
        // The preset is known by the card's name alone, which says nothing of the host.
        assert_eq!(
            (of(asked(&map)).host, of(asked(&map)).host_source()),
            (54_000_000_000, "what the host has left")
        );
        assert_eq!((of(limited("cpu=16GB")).host, of(limited("cpu=16GB")).host_by), (16_000_000_000, None));
        assert_eq!(of(limited("cpu=50%,0=10GB")).host, 32_000_000_000);
        assert_eq!(of(limited("cpu=500GB")).host, 54_000_000_000);
        let named = of(Asked { preset: Preset::named("rtx3090"), ..limited("cpu=20GB") });
        assert_eq!((named.device, named.host), (20_000_000_000, 20_000_000_000));
    }

    #[test]
    fn weights_that_do_not_fit_wait_on_the_host_and_then_on_disk() {
        let (card, map) = (gpu("NVIDIA GeForce RTX 3090", 24, 25), DeviceMap::default());
        let exact = fit(Precision::Bf16, &card, asked(&map)).unwrap();
        assert!(!exact.layers(Place::Host).is_empty() && exact.layers(Place::Disk).is_empty(), "{exact:?}");
        let limits = Some(memory_limits("8GB,cpu=10GB").unwrap());
        let tight = fit(Precision::Bf16, &card, Asked { limits, ..asked(&map) }).unwrap();
        assert!(!tight.layers(Place::Disk).is_empty() && tight.memory.host <= 10_000_000_000, "{tight:?}");
        let map = DeviceMap { offload: moetrace_model::Offload::Always, ..DeviceMap::default() };
        let offloaded = fit(Precision::Nf4, &card, asked(&map)).unwrap();
        assert_eq!(offloaded.layers(Place::Host).len(), 28);
    }

    #[test]
    fn what_does_not_fit_is_refused_with_what_would() {
        let (card, map) = (gpu("NVIDIA GeForce RTX 3090", 24, 25), DeviceMap::default());
        let limited = |text: &str| Asked { limits: Some(memory_limits(text).unwrap()), ..asked(&map) };
        let nf4 = |asked| fit(Precision::Nf4, &card, asked);
        let device = nf4(limited("900MB")).unwrap_err();
        assert_eq!((device.exit, device.name), (78, "E-MEMORY"));
        assert!(
            device.what.contains("at the least") && device.what.contains("900.0 MB (--max-memory)"),
            "{device}"
        );
        // What it says would work works, and a megabyte less does not.
        let help = device.help.unwrap();
        let least = help.split(' ').nth(1).unwrap();
        assert!(nf4(limited(least)).is_ok(), "{least}");
        let number: u64 = least.strip_prefix("gpu=").unwrap().strip_suffix("MB").unwrap().parse().unwrap();
        assert!(nf4(limited(&format!("gpu={}MB", number - 1))).is_err(), "{least}");

        let quantised = Asked { reads_disk: false, ..limited("4GB,cpu=2GB") };
        let host = nf4(quantised).unwrap_err();
        assert!(
            host.what.contains("on the host") && host.to_string().contains("--cache-quantized"),
            "{host}"
        );
        let least = host.help.unwrap().split(' ').nth(1).unwrap().to_owned();
        let enough = Asked { reads_disk: false, ..limited(&format!("4GB,{least}")) };
        assert!(nf4(enough).is_ok(), "{least}");

        // Every layer stays, and little is left for buffers.
        let kept = DeviceMap { offload: moetrace_model::Offload::Never, ..DeviceMap::default() };
        let kept = |tokens| nf4(Asked { tokens: Some(tokens), map: &kept, ..limited("10100MB") });
        let pass = kept(MOST_PASS).unwrap_err();
        let largest = pass.help.as_ref().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        assert_eq!(kept(largest).unwrap().tokens_per_pass, largest);

        let beyond = nf4(Asked { tokens: Some(MOST_PASS + 1), ..asked(&map) }).unwrap_err();
        assert_eq!((beyond.exit, beyond.name), (2, "E-SETTING"));
        let other = nf4(limited("1=20GB")).unwrap_err().to_string();
        assert!(other.contains("is for GPU 1, the run is on GPU 0"), "{other}");
    }

    #[test]
    fn layers_that_must_stay_are_refused_with_a_map_that_frees_them() {
        let (card, map) = (
            gpu("NVIDIA GeForce RTX 3090", 24, 25),
            DeviceMap { offload: moetrace_model::Offload::Never, ..DeviceMap::default() },
        );
        let refused = fit(Precision::Bf16, &card, asked(&map)).unwrap_err().to_string();
        assert!(refused.contains("(preset rtx3090)") && refused.contains("--device-map auto"), "{refused}");
        assert!(refused.contains("--precision nf4") && !refused.contains("--max-memory gpu="), "{refused}");
        let elsewhere = DeviceMap { gpu: Some(3), ..DeviceMap::default() };
        let refused = fit(Precision::Nf4, &card, asked(&elsewhere)).unwrap_err().to_string();
        assert!(refused.contains("--device-map is for GPU 3"), "{refused}");
    }

    #[test]
    fn a_pass_holds_the_longest_text_whatever_was_asked_for() {
        let (card, map) = (gpu("NVIDIA H200", 150, 151), DeviceMap::default());
        let fitted = |asked| fit(Precision::Nf4, &card, asked).unwrap();
        let long = Asked { max_length: 50_000, ..asked(&map) };
        assert!(fitted(long).tokens_per_pass >= 50_000);
        let small = fitted(Asked { tokens: Some(512), ..long });
        assert_eq!(
            (small.tokens_per_pass, small.memory),
            (512, fitted(Asked { tokens: Some(50_000), ..long }).memory)
        );
    }
}
