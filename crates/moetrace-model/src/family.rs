//! What tells the supported families apart, as data.

use std::fmt;

/// A supported model family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Family {
    /// DeepSeek v1 (DeepSeek-MoE-16B).
    DeepSeek,
    /// Qwen1.5-MoE and Qwen2-MoE.
    Qwen2Moe,
    /// Mixtral.
    Mixtral,
    /// `OLMoE`.
    Olmoe,
    /// Qwen3-MoE.
    Qwen3Moe,
}

/// Where the number of each tensor name or configuration field differs between families.
#[derive(Debug)]
pub(crate) struct FamilyRules {
    pub(crate) model_type: &'static str,
    pub(crate) experts_field: &'static str,
    pub(crate) expert_width_field: &'static str,
    pub(crate) dense_layers: DenseLayers,
    pub(crate) shared: SharedExperts,
    pub(crate) renormalise: Renormalise,
    pub(crate) router_scores: RouterScores,
    pub(crate) qk_norm: QkNorm,
    pub(crate) bias: AttentionBias,
    /// Value of `rope_theta` where the configuration is silent, as in the reference configuration class.
    pub(crate) rope_theta: f64,
    /// Value of `rms_norm_eps` where the configuration is silent, likewise.
    pub(crate) rms_norm_eps: f64,
    /// Whether `sliding_window` counts by itself (Mixtral) or only with `use_sliding_window`.
    pub(crate) window_needs_switch: bool,
    /// Whether the reference model's router is a linear module, which bitsandbytes quantises, or a parameter.
    pub(crate) router_is_linear: bool,
    /// Module of the MoE block inside a layer.
    pub(crate) moe_block: &'static str,
    /// Names of an expert's gate, up and down projections.
    pub(crate) expert_projections: [&'static str; 3],
}

/// Which layers have a plain feed-forward block instead of experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DenseLayers {
    /// None.
    Never,
    /// `l < first_k_dense_replace`, or `l` not a multiple of `moe_layer_freq`.
    FirstAndFrequency,
    /// `l` in `mlp_only_layers`, or `l + 1` not a multiple of `decoder_sparse_step`.
    ListAndStep,
}

/// The experts every token goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SharedExperts {
    None,
    /// `n_shared_experts` experts fused into one block of that many times the expert width, added as it is.
    Added,
    /// One block of `shared_expert_intermediate_size`, multiplied with the sigmoid of its own gate.
    Gated,
}

/// Whether the K weights are divided by their sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Renormalise {
    Always,
    /// As `norm_topk_prob` says, `false` where it is silent.
    Field,
    /// The same, but never when K is 1, and with 1e-20 added to the sum (`DeepSeek`'s gate).
    FieldUnlessSingle,
}

/// In what type the softmax over the experts is taken when the model is not in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RouterScores {
    /// Rounded to the model's type before the top-k, which then sees ties.
    ModelDtype,
    /// f32; only the final weights are rounded.
    F32,
}

/// RMSNorm of queries and keys before the rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QkNorm {
    None,
    /// Over all heads together.
    FullWidth,
    /// Over each head alone.
    PerHead,
}

/// Which attention projections carry a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AttentionBias {
    Never,
    /// All four, if `attention_bias` is true (`false` where it is silent).
    AllByField,
    /// Query, key and value, unless `qkv_bias` is false.
    QkvByField,
}

const SWIGLU: [&str; 3] = ["gate_proj", "up_proj", "down_proj"];

const DEEPSEEK: FamilyRules = FamilyRules {
    model_type: "deepseek",
    experts_field: "n_routed_experts",
    expert_width_field: "moe_intermediate_size",
    dense_layers: DenseLayers::FirstAndFrequency,
    shared: SharedExperts::Added,
    renormalise: Renormalise::FieldUnlessSingle,
    router_scores: RouterScores::ModelDtype,
    qk_norm: QkNorm::None,
    bias: AttentionBias::AllByField,
    rope_theta: 1e4,
    rms_norm_eps: 1e-6,
    window_needs_switch: true,
    router_is_linear: false,
    moe_block: "mlp",
    expert_projections: SWIGLU,
};
const QWEN2_MOE: FamilyRules = FamilyRules {
    model_type: "qwen2_moe",
    router_is_linear: true,
    experts_field: "num_experts",
    dense_layers: DenseLayers::ListAndStep,
    shared: SharedExperts::Gated,
    renormalise: Renormalise::Field,
    router_scores: RouterScores::F32,
    bias: AttentionBias::QkvByField,
    ..DEEPSEEK
};
const MIXTRAL: FamilyRules = FamilyRules {
    model_type: "mixtral",
    router_is_linear: true,
    experts_field: "num_local_experts",
    expert_width_field: "intermediate_size",
    dense_layers: DenseLayers::Never,
    shared: SharedExperts::None,
    renormalise: Renormalise::Always,
    router_scores: RouterScores::F32,
    bias: AttentionBias::Never,
    rope_theta: 1e6,
    rms_norm_eps: 1e-5,
    window_needs_switch: false,
    moe_block: "block_sparse_moe",
    expert_projections: ["w1", "w3", "w2"],
    ..DEEPSEEK
};
const OLMOE: FamilyRules = FamilyRules {
    model_type: "olmoe",
    router_is_linear: true,
    experts_field: "num_experts",
    expert_width_field: "intermediate_size",
    dense_layers: DenseLayers::Never,
    shared: SharedExperts::None,
    renormalise: Renormalise::Field,
    router_scores: RouterScores::F32,
    qk_norm: QkNorm::FullWidth,
    rms_norm_eps: 1e-5,
    ..DEEPSEEK
};
const QWEN3_MOE: FamilyRules = FamilyRules {
    model_type: "qwen3_moe",
    router_is_linear: true,
    experts_field: "num_experts",
    dense_layers: DenseLayers::ListAndStep,
    shared: SharedExperts::None,
    renormalise: Renormalise::Field,
    router_scores: RouterScores::F32,
    qk_norm: QkNorm::PerHead,
    ..DEEPSEEK
};

impl Family {
    /// Every supported family.
    pub const ALL: [Self; 5] = [Self::DeepSeek, Self::Qwen2Moe, Self::Mixtral, Self::Olmoe, Self::Qwen3Moe];

    /// The `model_type` of its `config.json`.
    pub fn model_type(self) -> &'static str {
        self.rules().model_type
    }

    /// The family of a `model_type`, if it is supported.
    pub fn from_model_type(model_type: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.model_type() == model_type)
    }

    pub(crate) fn rules(self) -> &'static FamilyRules {
        match self {
            Self::DeepSeek => &DEEPSEEK,
            Self::Qwen2Moe => &QWEN2_MOE,
            Self::Mixtral => &MIXTRAL,
            Self::Olmoe => &OLMOE,
            Self::Qwen3Moe => &QWEN3_MOE,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.model_type())
    }
}
