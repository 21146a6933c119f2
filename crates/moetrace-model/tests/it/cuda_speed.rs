//! How fast a placement is said to be.

use moetrace_cuda::Architecture;
use moetrace_model::{CudaMemoryPlan, CudaSettings, Place, Placement, Precision, Preset, SpeedEstimate};

use crate::cuda_memory::deepseek;

/// DeepSeek-MoE-16B on the GPU of a preset, with layers all in one place.
fn speed(preset: &str, precision: Precision, place: Place, (pass, chunk): (usize, usize)) -> SpeedEstimate {
    let (config, settings) = (deepseek(), CudaSettings { precision, ..CudaSettings::default() });
    let preset = Preset::named(preset).unwrap();
    let plan = CudaMemoryPlan::new(&config, None, &settings, preset.architecture).unwrap();
    let mut placement = Placement::resident(&config, pass);
    placement.layers.fill(place);
    placement.tokens_per_chunk = chunk;
    plan.planned(preset.speed, placement, 512).speed
}

#[test]
fn an_h200_is_as_fast_as_it_was_measured() {
    // docs/benchmarks.md, "The CUDA engine on one H200": 4-bit weights on the device, texts of 512 tokens.
    for (tokens, measured) in [(4_096, 82_600.0), (10_240, 101_300.0), (40_960, 113_600.0)] {
        let found = speed("h200", Precision::Nf4, Place::Device, (tokens, tokens));
        let ratio = found.tokens_per_second / measured;
        assert!((0.98..1.02).contains(&ratio), "{tokens}: {ratio:.3} of what was measured");
        assert_eq!((found.waiting(), found.copied, found.hidden_from), (0.0, 0, None));
    }
}

#[test]
fn a_slow_bus_is_waited_for_in_small_passes_and_hidden_in_large_ones() {
    let of = |tokens| speed("h200", Precision::Nf4, Place::Host, (tokens, 4_096));
    let (small, large) = (of(4_096), of(65_536));
    assert!(small.waiting() > 0.5, "{small:?}");
    assert!(large.waiting() < 0.01, "{large:?}");
    // 8.2 GB take 0.15 s at 55 GB/s; a pass that small takes as long as that.
    assert!((0.14..0.16).contains(&small.pass_seconds), "{small:?}");
    let from = small.hidden_from.unwrap();
    assert_eq!(large.hidden_from, Some(from));
    let (at, below) = (of(from), of(from / 2));
    assert!(at.waiting() <= 0.01 && below.waiting() > 0.1, "{from}: {at:?} {below:?}");
}

#[test]
fn sixteen_bits_need_longer_passes_and_disks_longer_ones_still() {
    let from = |precision, place| {
        speed("h200", precision, place, (131_072, 16_384)).hidden_from.unwrap_or(usize::MAX)
    };
    let nf4 = from(Precision::Nf4, Place::Host);
    let bf16 = from(Precision::Bf16, Place::Host);
    assert!((8_192..32_768).contains(&nf4), "{nf4}");
    assert!((65_536..131_072).contains(&bf16), "{bf16}");
    assert!(from(Precision::Bf16, Place::Disk) > 4 * bf16);
}

#[test]
fn f32_is_said_to_be_slow_and_an_unknown_gpu_to_be_unmeasured() {
    let of = |precision| speed("h200", precision, Place::Device, (4_096, 4_096)).tokens_per_second;
    assert!(of(Precision::F32) < of(Precision::Bf16) / 10.0);
    let measured = |preset: &str| Preset::named(preset).unwrap().speed.measured;
    assert!(measured("h200") && !measured("rtx3090"));
    assert!(Architecture::ALL.contains(&Preset::named("rtx3090").unwrap().architecture));
}
