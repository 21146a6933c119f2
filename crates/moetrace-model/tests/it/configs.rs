//! Configurations: what published files say, what is refused, and how the refusal reads.

use moetrace_model::synthetic::tiny_config;
use moetrace_model::{Family, ModelConfig, ModelError};
use moetrace_routing::LayerIndex;
use proptest::prelude::*;
use serde_json::{Value, json};

fn parse(config: &Value) -> Result<ModelConfig, ModelError> {
    ModelConfig::parse(config.to_string().as_bytes(), "config.json")
}

/// A tiny configuration with one field changed.
fn with(family: Family, field: &str, value: Value) -> Value {
    let mut config = tiny_config(family);
    config[field] = value;
    config
}

fn published() -> [(Value, f64, f64); 5] {
    let deepseek = json!({
        "model_type": "deepseek", "hidden_size": 2048, "num_hidden_layers": 28, "num_attention_heads": 16,
        "num_key_value_heads": 16, "intermediate_size": 10944, "moe_intermediate_size": 1408,
        "n_routed_experts": 64, "n_shared_experts": 2, "num_experts_per_tok": 6, "first_k_dense_replace": 1,
        "moe_layer_freq": 1, "vocab_size": 102_400, "norm_topk_prob": false, "hidden_act": "silu",
        "rms_norm_eps": 1e-6, "rope_theta": 10000, "scoring_func": "softmax", "bos_token_id": 100_000
    });
    let qwen2 = json!({
        "model_type": "qwen2_moe", "hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 16,
        "num_key_value_heads": 16, "intermediate_size": 5632, "moe_intermediate_size": 1408, "num_experts": 60,
        "num_experts_per_tok": 4, "shared_expert_intermediate_size": 5632, "vocab_size": 151_936,
        "use_sliding_window": false, "sliding_window": 32768, "max_window_layers": 21, "rope_theta": 1e6
    });
    let mixtral = json!({
        "model_type": "mixtral", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "intermediate_size": 14336, "num_local_experts": 8, "vocab_size": 32000,
        "num_experts_per_tok": 2, "sliding_window": null
    });
    let olmoe = json!({
        "model_type": "olmoe", "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 16,
        "intermediate_size": 1024, "num_experts": 64, "num_experts_per_tok": 8, "vocab_size": 50304,
        "clip_qkv": null, "rope_scaling": null
    });
    let qwen3 = json!({
        "model_type": "qwen3_moe", "hidden_size": 2048, "num_hidden_layers": 48, "num_attention_heads": 32,
        "num_key_value_heads": 4, "head_dim": 128, "intermediate_size": 6144, "moe_intermediate_size": 768,
        "num_experts": 128, "num_experts_per_tok": 8, "vocab_size": 151_936, "norm_topk_prob": true
    });
    // Published sizes in billions: all weights, and those that a token goes through.
    [
        (deepseek, 16.376, 2.829),
        (qwen2, 14.316, 2.689),
        (mixtral, 46.703, 12.880),
        (olmoe, 6.919, 1.282),
        (qwen3, 30.532, 3.353),
    ]
}

#[test]
fn published_configurations_give_the_published_sizes() {
    for (config, total, active) in published() {
        let config = parse(&config).unwrap();
        let billions = |n: u64| (n as f64 / 1e6).round() / 1e3;
        assert!((billions(config.total_parameters()) - total).abs() < 0.0011, "{}", config.family());
        assert!((billions(config.active_parameters()) - active).abs() < 0.0011, "{}", config.family());
    }
}

#[test]
fn published_deepseek_reads_field_by_field() {
    let config = parse(&published()[0].0).unwrap();
    assert_eq!(config.family().to_string(), "deepseek");
    assert_eq!((config.hidden(), config.layers(), config.vocab()), (2048, 28, 102_400));
    assert_eq!((config.heads(), config.kv_heads(), config.head_width()), (16, 16, 128));
    assert_eq!((config.experts(), config.chosen(), config.expert_width()), (64, 6, 1408));
    assert_eq!((config.shared_width(), config.dense_width()), (2816, 10944));
    assert_eq!(config.bos_token_id(), Some(100_000));
    assert!(!config.renormalises() && !config.has_qkv_bias() && !config.has_tied_head());
    let layers: Vec<_> = (1..28).map(LayerIndex).collect();
    assert_eq!(config.geometry().layers(), layers);
}

#[test]
fn families_differ_where_their_references_do() {
    let config = |family| parse(&tiny_config(family)).unwrap();
    let all = Family::ALL.map(config);
    assert_eq!(all.each_ref().map(ModelConfig::has_qkv_bias), [false, true, false, false, false]);
    assert_eq!(all.each_ref().map(ModelConfig::renormalises), [false, false, true, false, true]);
    assert_eq!(all.each_ref().map(|c| c.geometry().has_shared_gate()), [false, true, false, false, false]);
    assert_eq!(all.each_ref().map(ModelConfig::shared_width), [48, 40, 0, 0, 0]);
    assert_eq!(all.each_ref().map(ModelConfig::head_width), [8, 8, 8, 8, 16]);
}

#[test]
fn dense_layers_are_where_each_family_says() {
    let moe = |config: &Value| -> Vec<usize> {
        let config = parse(config).unwrap();
        config.geometry().layers().iter().map(|l| l.index()).collect()
    };
    let mut deepseek = with(Family::DeepSeek, "num_hidden_layers", json!(7));
    deepseek["first_k_dense_replace"] = json!(2);
    assert_eq!(moe(&deepseek), [2, 3, 4, 5, 6]);
    deepseek["moe_layer_freq"] = json!(3);
    assert_eq!(moe(&deepseek), [3, 6]);
    let mut qwen = with(Family::Qwen2Moe, "num_hidden_layers", json!(6));
    qwen["decoder_sparse_step"] = json!(2);
    assert_eq!(moe(&qwen), [1, 3, 5]);
    qwen["mlp_only_layers"] = json!([3]);
    assert_eq!(moe(&qwen), [1, 5]);
}

#[test]
fn deepseek_does_not_renormalise_a_single_expert() {
    let mut config = with(Family::DeepSeek, "norm_topk_prob", json!(true));
    assert!(parse(&config).unwrap().renormalises());
    config["num_experts_per_tok"] = json!(1);
    assert!(!parse(&config).unwrap().renormalises());
    let mut qwen = with(Family::Qwen3Moe, "num_experts_per_tok", json!(1));
    assert!(parse(&qwen).unwrap().renormalises());
    qwen["norm_topk_prob"] = json!(false);
    assert!(!parse(&qwen).unwrap().renormalises());
}

#[test]
fn a_rotary_base_is_found_in_old_and_new_places() {
    let theta = |config: &Value| parse(config).unwrap().rope_theta().round() as u64;
    let mut config = tiny_config(Family::Qwen3Moe);
    assert_eq!(theta(&config), 10_000);
    config["rope_parameters"] = json!({"rope_theta": 500_000.0, "rope_type": "default"});
    assert_eq!(theta(&config), 500_000);
    config.as_object_mut().unwrap().remove("rope_theta");
    assert_eq!(theta(&config), 500_000);
    config["rope_parameters"] = Value::Null;
    assert_eq!(theta(&config), 10_000);
    let mut mixtral = tiny_config(Family::Mixtral);
    mixtral.as_object_mut().unwrap().remove("rope_theta");
    assert_eq!(theta(&mixtral), 1_000_000);
}

#[test]
fn features_that_are_not_computed_are_refused_by_name() {
    let yarn = json!({"rope_type": "yarn", "factor": 4.0});
    for (family, field, value) in [
        (Family::DeepSeek, "rope_scaling", yarn.clone()),
        (Family::DeepSeek, "rope_scaling", json!({"type": "linear", "factor": 2.0})),
        (Family::Qwen3Moe, "rope_parameters", yarn),
        (Family::Qwen3Moe, "rope_parameters", json!({"full_attention": {"rope_theta": 1e4}})),
        (Family::Olmoe, "clip_qkv", json!(8.0)),
        (Family::Mixtral, "sliding_window", json!(4096)),
        (Family::Mixtral, "hidden_act", json!("gelu")),
        (Family::DeepSeek, "scoring_func", json!("sigmoid")),
        (Family::Qwen2Moe, "partial_rotary_factor", json!(0.5)),
        (Family::Qwen2Moe, "quantization_config", json!({"quant_method": "gptq"})),
        (Family::Qwen3Moe, "layer_types", json!(["full_attention", "sliding_attention", "full_attention"])),
    ] {
        let error = parse(&with(family, field, value.clone())).unwrap_err();
        let ModelError::Unsupported { field: named, .. } = &error else { panic!("{field}: {error}") };
        assert_eq!(*named, field);
        assert!(error.to_string().starts_with("config.json: "), "{error}");
    }
    let mut window = with(Family::Qwen2Moe, "sliding_window", json!(4096));
    assert!(parse(&window).is_ok(), "a window that is switched off is no window");
    window["use_sliding_window"] = json!(true);
    assert!(matches!(parse(&window), Err(ModelError::Unsupported { field: "sliding_window", .. })));
    let plain = json!(["full_attention", "full_attention", "full_attention"]);
    assert!(parse(&with(Family::Qwen3Moe, "layer_types", plain)).is_ok());
}

#[test]
fn other_model_types_are_refused_with_the_list_of_supported_ones() {
    for model_type in [json!("deepseek_v2"), json!("llama"), json!(null), json!(7)] {
        let error = parse(&with(Family::DeepSeek, "model_type", model_type)).unwrap_err();
        let ModelError::ModelType { expected, .. } = &error else { panic!("{error}") };
        assert_eq!(expected, "deepseek, qwen2_moe, mixtral, olmoe, qwen3_moe");
    }
    for text in ["", "{", "[]", "null", "\u{0}", "{\"model_type\": \"mixtral\""] {
        let error = ModelConfig::parse(text.as_bytes(), "config.json").unwrap_err();
        assert!(matches!(error, ModelError::Json { .. } | ModelError::ModelType { .. }), "{error}");
    }
}

#[test]
fn hostile_numbers_are_refused_field_by_field() {
    let huge = json!(1u64 << 40);
    for (field, values) in [
        ("hidden_size", vec![json!(0), huge.clone(), json!(-1), json!(1.5), json!("32")]),
        ("num_hidden_layers", vec![json!(0), json!(1u64 << 31), json!([3])]),
        ("num_attention_heads", vec![json!(0), huge.clone(), json!(5)]),
        ("num_key_value_heads", vec![json!(0), json!(3), json!(8)]),
        ("vocab_size", vec![json!(0), huge.clone()]),
        ("n_routed_experts", vec![json!(0), json!(65537), json!(2)]),
        ("num_experts_per_tok", vec![json!(0), json!(9)]),
        ("moe_intermediate_size", vec![json!(0), huge.clone()]),
        ("intermediate_size", vec![json!(0), huge.clone()]),
        ("n_shared_experts", vec![json!(-1), huge.clone()]),
        ("head_dim", vec![json!(0), json!(7), huge]),
        ("first_k_dense_replace", vec![json!(3), json!(-1)]),
        ("moe_layer_freq", vec![json!(0)]),
        ("rms_norm_eps", vec![json!(0), json!(-1e-6), json!(2.0), json!("1e-6")]),
        ("rope_theta", vec![json!(0), json!(-1.0), json!(1e300)]),
        ("norm_topk_prob", vec![json!(1), json!("false")]),
        ("tie_word_embeddings", vec![json!("no")]),
    ] {
        for value in values {
            let error = parse(&with(Family::DeepSeek, field, value.clone())).unwrap_err();
            assert!(matches!(error, ModelError::FieldRange { .. }), "{field} = {value}: {error}");
        }
    }
    for bad in [json!([3]), json!([-1]), json!(["0"]), json!(1)] {
        let error = parse(&with(Family::Qwen3Moe, "mlp_only_layers", bad)).unwrap_err();
        assert!(matches!(error, ModelError::FieldRange { field: "mlp_only_layers", .. }), "{error}");
    }
}

#[test]
fn a_message_says_file_field_value_and_expectation() {
    let error = parse(&with(Family::DeepSeek, "num_experts_per_tok", json!(65))).unwrap_err();
    assert_eq!(error.to_string(), "config.json: num_experts_per_tok = 65, expected 1 to 8");
    let long = parse(&with(Family::DeepSeek, "hidden_size", json!("x".repeat(5000)))).unwrap_err();
    assert!(long.to_string().len() < 200, "a file's own text does not flood the message");
    let mut without = tiny_config(Family::Mixtral);
    without.as_object_mut().unwrap().remove("num_local_experts");
    let error = parse(&without).unwrap_err();
    assert_eq!(error.to_string(), "config.json: num_local_experts is missing, expected 1 to 65536");
}

#[test]
fn products_that_no_machine_holds_are_an_error_not_an_allocation() {
    let mut config = tiny_config(Family::Mixtral);
    for (field, value) in [
        ("hidden_size", 1u64 << 20),
        ("intermediate_size", 1 << 20),
        ("num_hidden_layers", 4096),
        ("num_local_experts", 65536),
    ] {
        config[field] = json!(value);
    }
    assert!(matches!(parse(&config), Err(ModelError::TooLarge { .. })));
}

#[test]
fn a_file_too_large_to_be_a_configuration_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(ModelConfig::read(dir.path()), Err(ModelError::Io { .. })));
    std::fs::write(dir.path().join("config.json"), vec![b' '; 5 << 20]).unwrap();
    assert!(matches!(ModelConfig::read(dir.path()), Err(ModelError::FileSize { .. })));
}

proptest! {
    #[test]
    fn no_change_of_one_field_makes_the_parser_panic(
        family in prop::sample::select(Family::ALL.to_vec()),
        field in prop::sample::select(vec![
            "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
            "vocab_size", "n_routed_experts", "num_experts", "num_local_experts", "num_experts_per_tok",
            "moe_intermediate_size", "intermediate_size", "shared_expert_intermediate_size", "n_shared_experts",
            "first_k_dense_replace", "moe_layer_freq", "decoder_sparse_step", "mlp_only_layers", "rope_theta",
            "rms_norm_eps", "rope_parameters", "rope_scaling", "layer_types", "bos_token_id", "sliding_window",
        ]),
        value in prop_oneof![
            any::<i64>().prop_map(Value::from), any::<u64>().prop_map(Value::from), (0u64..300).prop_map(Value::from),
            any::<f64>().prop_map(Value::from), any::<bool>().prop_map(Value::from),
            prop::collection::vec(any::<i64>(), 0..4).prop_map(Value::from), Just(Value::Null), Just(json!({"a": 1})),
        ],
    ) {
        if let Ok(config) = parse(&with(family, field, value)) {
            prop_assert!(config.total_parameters() >= config.active_parameters());
            prop_assert!(config.chosen() <= config.experts());
            prop_assert_eq!(config.heads() % config.kv_heads(), 0);
        }
    }

    #[test]
    fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(ModelConfig::parse(&bytes, "config.json").is_err());
    }
}
