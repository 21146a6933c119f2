//! Where weights go within a budget: each rule, and the budget above all.

use moetrace_cuda::Architecture;
use moetrace_model::{
    Budget, CudaMemoryPlan, CudaSettings, Lack, ModelConfig, Offload, Place, Placement, Planned, Precision,
    Preset, Shortfall, Wishes,
};
use moetrace_routing::Planes;
use proptest::prelude::*;
use serde_json::json;

use crate::cuda_memory::deepseek;

const GB: u64 = 1_000_000_000;

fn mixtral() -> ModelConfig {
    let config = json!({
        "model_type": "mixtral", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "intermediate_size": 14336, "num_local_experts": 8, "num_experts_per_tok": 2,
        "vocab_size": 32000, "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 1_000_000.0
    });
    ModelConfig::parse(config.to_string().as_bytes(), "config.json").unwrap()
}

/// Qwen1.5-MoE-A2.7B.
fn qwen() -> ModelConfig {
    let config = json!({
        "model_type": "qwen2_moe", "hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 16,
        "num_key_value_heads": 16, "intermediate_size": 5632, "moe_intermediate_size": 1408, "num_experts": 60,
        "num_experts_per_tok": 4, "shared_expert_intermediate_size": 5632, "vocab_size": 151_936,
        "decoder_sparse_step": 1, "norm_topk_prob": false, "hidden_act": "silu", "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000.0
    });
    ModelConfig::parse(config.to_string().as_bytes(), "config.json").unwrap()
}

/// A place for the model on an H200 that lends so many bytes.
fn place(
    config: &ModelConfig,
    precision: Precision,
    (device, host): (u64, u64),
    wishes: &Wishes,
) -> Result<Planned, Box<Shortfall>> {
    let settings = CudaSettings { precision, ..CudaSettings::default() };
    let plan = CudaMemoryPlan::new(config, None, &settings, Architecture::Sm90a).unwrap();
    let planned = plan.place(Preset::named("h200").unwrap().speed, Budget { device, host }, wishes)?;
    assert_eq!(planned.memory, plan.memory_of(&planned.placement));
    Ok(planned)
}

fn count(placement: &Placement, place: Place) -> usize {
    placement.layers.iter().filter(|layer| **layer == place).count()
}

#[test]
fn what_fits_stays_on_the_device_in_passes_of_the_usual_size() {
    let planned = place(&deepseek(), Precision::Nf4, (134 * GB, 0), &Wishes::default());
    // Even routing on its way to the host takes some of it.
    assert_eq!(planned.unwrap_err().lacks, Lack::Host);
    let wishes = Wishes::default();
    let planned = place(&deepseek(), Precision::Nf4, (134 * GB, GB), &wishes).unwrap();
    assert_eq!(planned.placement, Placement::resident(&deepseek(), 40_960));
    let asked = Wishes { tokens_per_pass: Some(1_000), ..wishes };
    let planned = place(&deepseek(), Precision::Nf4, (134 * GB, GB), &asked).unwrap();
    assert_eq!(planned.placement, Placement::resident(&deepseek(), 1_000));
}

#[test]
fn budgets_of_small_cards_stream_at_nearly_the_speed_of_a_large_one() {
    let of = |config: &ModelConfig, precision, device| {
        place(config, precision, (device, 100 * GB), &Wishes::default()).unwrap()
    };
    let speed = |planned: &Planned| planned.speed.tokens_per_second;
    let nf4 = of(&deepseek(), Precision::Nf4, 134 * GB);
    for (device, share) in [(6 * GB, 0.95), (4 * GB, 0.9), (5 * GB / 2, 0.7)] {
        let small = of(&deepseek(), Precision::Nf4, device);
        assert!(speed(&small) > share * speed(&nf4), "{device}: {small:?}");
        assert_eq!((small.placement.tokens_per_pass, small.placement.expert_groups), (65_536, 1));
        assert!(small.placement.tokens_per_chunk < 65_536);
    }
    let exact = of(&deepseek(), Precision::Bf16, 8 * GB);
    assert!(speed(&exact) > 0.9 * speed(&nf4), "{exact:?}");
    assert_eq!(exact.placement.tokens_per_pass, 131_072);
    assert!(exact.memory.host > 25 * GB && exact.memory.total() <= 8 * GB, "{:?}", exact.memory);
    let large = of(&mixtral(), Precision::Nf4, 134 * GB);
    let small = of(&mixtral(), Precision::Nf4, 20 * GB);
    assert!(speed(&small) > 0.95 * speed(&large), "{small:?}");
    let qwen_small = of(&qwen(), Precision::Nf4, 4 * GB);
    assert!(qwen_small.speed.waiting() < 0.05, "{qwen_small:?}");
}

#[test]
fn layers_that_stream_are_spread_among_those_that_stay() {
    let wishes = Wishes { tokens_per_pass: Some(4_096), ..Wishes::default() };
    let planned = place(&deepseek(), Precision::Nf4, (9 * GB, 100 * GB), &wishes).unwrap();
    let layers = &planned.placement.layers;
    assert!(count(&planned.placement, Place::Host) < 14, "{layers:?}");
    let neighbours = layers.windows(2).filter(|pair| **pair == [Place::Host; 2]).count();
    assert_eq!(neighbours, 0, "{layers:?}");
}

#[test]
fn a_small_pass_keeps_layers_where_a_large_one_prefers_chunks() {
    let of = |tokens| {
        let wishes = Wishes { tokens_per_pass: Some(tokens), ..Wishes::default() };
        place(&deepseek(), Precision::Nf4, (6 * GB, 100 * GB), &wishes).unwrap().placement
    };
    let (small, large) = (of(4_096), of(65_536));
    assert!(count(&small, Place::Device) > 2 * count(&large, Place::Device), "{small:?} {large:?}");
    assert!(large.tokens_per_chunk > 4 * small.tokens_per_chunk, "{small:?} {large:?}");
}

#[test]
fn cards_that_hold_no_two_layers_take_groups_of_experts() {
    let wishes = Wishes::default();
    let planned = place(&deepseek(), Precision::Nf4, (3 * GB / 2, 100 * GB), &wishes).unwrap();
    let placement = &planned.placement;
    assert!(placement.expert_groups > 1 && placement.expert_groups <= 64, "{placement:?}");
    assert_eq!(placement.tokens_per_chunk, placement.tokens_per_pass);
    let more = place(&deepseek(), Precision::Nf4, (2 * GB, 100 * GB), &wishes).unwrap();
    assert!(more.speed.tokens_per_second > planned.speed.tokens_per_second);
}

#[test]
fn what_the_host_has_no_room_for_is_read_from_disk_unless_it_is_in_no_file() {
    let wishes = Wishes::default();
    let planned = place(&deepseek(), Precision::Bf16, (8 * GB, 16 * GB), &wishes).unwrap();
    assert!(planned.memory.disk > 10 * GB && planned.memory.host <= 16 * GB, "{:?}", planned.memory);
    let disk = &planned.placement.layers;
    assert!(disk.contains(&Place::Host) && disk.contains(&Place::Disk), "{disk:?}");
    let quantised = Wishes { reads_disk: false, ..wishes };
    let refused = place(&deepseek(), Precision::Nf4, (4 * GB, 2 * GB), &quantised).unwrap_err();
    assert_eq!(refused.lacks, Lack::Host);
    let enough = (4 * GB, refused.least_host);
    place(&deepseek(), Precision::Nf4, enough, &quantised).unwrap();
    let short = place(&deepseek(), Precision::Nf4, (4 * GB, refused.least_host - 1), &quantised);
    assert_eq!(short.unwrap_err().lacks, Lack::Host);
}

#[test]
fn places_that_were_asked_for_are_kept() {
    let mut layers = vec![None; 10];
    (layers[2], layers[5], layers[7]) = (Some(Place::Host), Some(Place::Disk), Some(Place::Device));
    let wishes = Wishes { layers: layers.clone(), embedding: Some(Place::Host), ..Wishes::default() };
    for device in [4 * GB, 134 * GB] {
        let placement = place(&deepseek(), Precision::Nf4, (device, 100 * GB), &wishes).unwrap().placement;
        for (asked, found) in layers.iter().zip(&placement.layers) {
            assert!(asked.is_none_or(|asked| asked == *found), "{placement:?}");
        }
        assert_eq!(placement.embedding, Place::Host);
    }
    let all = Wishes { offload: Offload::Always, ..Wishes::default() };
    let placement = place(&deepseek(), Precision::Nf4, (134 * GB, 100 * GB), &all).unwrap().placement;
    assert_eq!(count(&placement, Place::Host), 28);
    let none = Wishes { offload: Offload::Never, ..Wishes::default() };
    assert!(place(&deepseek(), Precision::Nf4, (12 * GB, GB), &none).unwrap().placement.is_resident());
    let refused = place(&deepseek(), Precision::Nf4, (6 * GB, 100 * GB), &none).unwrap_err();
    assert_eq!(refused.lacks, Lack::Device);
    let enough = (refused.least_device, 100 * GB);
    assert!(place(&deepseek(), Precision::Nf4, enough, &none).unwrap().placement.is_resident());
}

#[test]
fn an_embedding_that_is_the_head_too_stays_on_the_device() {
    let mut text: serde_json::Value = json!({ "tie_word_embeddings": true });
    let olmoe = json!({
        "model_type": "olmoe", "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 16,
        "num_key_value_heads": 16, "intermediate_size": 1024, "num_experts": 64, "num_experts_per_tok": 8,
        "vocab_size": 50_304, "norm_topk_prob": false, "hidden_act": "silu", "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0
    });
    text.as_object_mut().unwrap().extend(olmoe.as_object().unwrap().clone());
    let config = ModelConfig::parse(text.to_string().as_bytes(), "config.json").unwrap();
    let planes = Planes { nll: true, ..Planes::default() };
    let settings = CudaSettings { precision: Precision::Nf4, planes, ..CudaSettings::default() };
    let plan = CudaMemoryPlan::new(&config, None, &settings, Architecture::Sm86).unwrap();
    let budget = Budget { device: 2 * GB, host: 100 * GB };
    let planned = plan.place(Preset::named("rtx3090").unwrap().speed, budget, &Wishes::default()).unwrap();
    assert_eq!(planned.placement.embedding, Place::Device);
}

#[test]
fn a_pass_that_is_too_large_is_refused_with_the_largest_that_fits() {
    // Every layer stays, and little is left for buffers.
    let of = |tokens| {
        let kept = Wishes { offload: Offload::Never, ..Wishes::default() };
        let wishes = Wishes { tokens_per_pass: Some(tokens), ..kept };
        place(&deepseek(), Precision::Nf4, (101 * GB / 10, 100 * GB), &wishes)
    };
    let refused = of(1 << 20).unwrap_err();
    assert_eq!(refused.lacks, Lack::Pass);
    let largest = refused.largest_pass.unwrap();
    assert_eq!(of(largest).unwrap().placement.tokens_per_pass, largest);
    assert!(of(largest + 512).is_err());
}

/// A large dense layer before a small one with experts.
fn uneven() -> ModelConfig {
    let config = json!({
        "model_type": "deepseek", "hidden_size": 2048, "num_hidden_layers": 3, "num_attention_heads": 16,
        "num_key_value_heads": 16, "intermediate_size": 10944, "moe_intermediate_size": 128,
        "n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 2, "first_k_dense_replace": 1,
        "moe_layer_freq": 1, "vocab_size": 1024, "norm_topk_prob": false, "hidden_act": "silu",
        "rms_norm_eps": 1e-6, "rope_theta": 10000, "scoring_func": "softmax"
    });
    ModelConfig::parse(config.to_string().as_bytes(), "config.json").unwrap()
}

#[test]
fn the_least_that_is_named_works_and_a_megabyte_less_does_not() {
    const MB: u64 = 1_000_000;
    let wishes = Wishes::default();
    for (config, precision) in [
        (deepseek(), Precision::Nf4),
        (deepseek(), Precision::Bf16),
        (uneven(), Precision::Bf16),
        (mixtral(), Precision::Bf16),
    ] {
        let of = |device, host| place(&config, precision, (device, host), &wishes);
        let refused = of(MB, 100 * GB).unwrap_err();
        let least = refused.least_device;
        assert_eq!(refused.lacks, Lack::Device);
        assert!(of(least, 100 * GB).is_ok() && of(least - MB, 100 * GB).is_err(), "{refused:?}");
        // Beside more than that, what the host lacks; layers may be read from disk.
        let refused = of(least + GB, MB / 100).unwrap_err();
        assert_eq!(refused.lacks, Lack::Host, "{refused:?}");
        assert!(of(least + GB, refused.least_host).is_ok(), "{refused:?}");
        assert!(of(least + GB, refused.least_host.saturating_sub(MB / 10)).is_err(), "{refused:?}");
    }
}

#[test]
fn a_pass_that_was_asked_for_is_never_made_smaller() {
    for (device, host) in [(4 * GB, 3 * GB), (GB, 3 * GB), (2 * GB, 3 * GB)] {
        for tokens in [1 << 20, 500_000, 70_000, 777] {
            let of = |tokens| {
                let wishes = Wishes { tokens_per_pass: Some(tokens), ..Wishes::default() };
                place(&deepseek(), Precision::Nf4, (device, host), &wishes)
            };
            match of(tokens) {
                Ok(planned) => assert_eq!(planned.placement.tokens_per_pass, tokens, "{planned:?}"),
                Err(refused) if refused.lacks == Lack::Pass => {
                    let largest = refused.largest_pass.unwrap();
                    assert!(largest < tokens && of(largest).is_ok(), "{device} {tokens}: {refused:?}");
                }
                Err(refused) => assert!(of(512).is_err(), "{device} {tokens}: {refused:?}"),
            }
        }
    }
}

proptest! {
    #[test]
    fn no_placement_takes_more_than_its_budget(
        model in 0usize..3,
        bits in 0usize..2,
        (device, host) in (1u64..200, 0u64..1200),
        pass in proptest::option::of(1usize..200_000),
        longest in 1usize..20_000,
        offload in 0usize..3,
        reads_disk: bool,
        fixed in proptest::collection::vec(0usize..8, 0..40),
    ) {
        let config = [deepseek, mixtral, qwen][model]();
        let precision = [Precision::Nf4, Precision::Bf16][bits];
        let places = [Some(Place::Device), Some(Place::Host), Some(Place::Disk)];
        let layers: Vec<_> = fixed.iter().map(|place| places.get(*place).copied().flatten()).collect();
        let offload = [Offload::Auto, Offload::Never, Offload::Always][offload];
        let wishes = Wishes { tokens_per_pass: pass, longest, offload, layers, embedding: None, reads_disk };
        let budget = (device * GB / 5, host * GB / 10);
        match place(&config, precision, budget, &wishes) {
            Ok(Planned { placement, memory, speed }) => {
                prop_assert!(memory.total() <= budget.0 && memory.host <= budget.1, "{memory:?}");
                prop_assert!(placement.tokens_per_chunk >= longest && placement.tokens_per_chunk <= 65_536);
                prop_assert!(placement.tokens_per_pass >= placement.tokens_per_chunk);
                prop_assert_eq!(placement.layers.len(), config.layers());
                prop_assert!(placement.expert_groups == 1 || placement.tokens_per_chunk == placement.tokens_per_pass);
                for (asked, found) in wishes.layers.iter().zip(&placement.layers) {
                    prop_assert!(asked.is_none_or(|asked| asked == *found));
                }
                let moved = placement.layers.contains(&Place::Device);
                prop_assert!(offload != Offload::Always || !moved || wishes.layers.contains(&Some(Place::Device)));
                prop_assert!(speed.tokens_per_second > 0.0 && speed.tokens_per_second.is_finite());
            }
            Err(shortfall) => match shortfall.lacks {
                Lack::Device => {
                    prop_assert!(shortfall.least_device > budget.0);
                    // With what it says would do, the device is not what is lacking.
                    let enough = (shortfall.least_device, 2_000 * GB);
                    let again = place(&config, precision, enough, &Wishes { tokens_per_pass: None, ..wishes });
                    prop_assert!(again.is_ok(), "{:?}", again);
                }
                Lack::Host => prop_assert!(shortfall.least_host > budget.1, "{shortfall:?}"),
                Lack::Pass => prop_assert!(shortfall.largest_pass < pass.map(|pass| pass.max(longest))),
            },
        }
    }
}
