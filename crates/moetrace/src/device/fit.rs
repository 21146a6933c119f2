//! How large a pass is, by the memory that a run may take.

use moetrace_model::{CudaMemory, CudaMemoryPlan, LARGEST_PASS, Preset};

use super::found::GpuFacts;
use super::limit::MemoryLimit;
use crate::failure::{Failure, code};
use crate::show::{bytes, thousands};

/// Tokens of a pass where memory allows: the size that the engine's speed is stated for.
const USUAL_PASS: usize = 40_960;

/// Automatic passes are a multiple of this.
const PASS_STEP: usize = 512;

/// What the user asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    /// `--max-memory`.
    pub(crate) limit: Option<MemoryLimit>,
    /// `--preset`.
    pub(crate) preset: Option<&'static Preset>,
    /// `--tokens-per-pass`, or what `--batch-size` makes it.
    pub(crate) tokens: Option<usize>,
    /// Most tokens of a text, which is never cut into two passes.
    pub(crate) max_length: usize,
}

impl Asked {
    /// Whether the user said nothing about memory or passes, so that another device may be taken.
    pub(crate) fn leaves_all_open(self) -> bool {
        self.limit.is_none() && self.preset.is_none() && self.tokens.is_none()
    }
}

/// How a run fits onto a GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fit {
    /// The preset, asked for or known by the GPU's name.
    pub(crate) preset: Option<&'static Preset>,
    /// Most bytes that the run may take.
    pub(crate) limit: u64,
    /// Who set the limit, if not the user's own `--max-memory`.
    pub(crate) limit_source: Option<String>,
    /// Tokens of a pass.
    pub(crate) tokens_per_pass: usize,
    /// What the run takes.
    pub(crate) memory: CudaMemory,
}

impl Fit {
    /// The pass asked for, or the largest that fits; refused, before anything is loaded, if it does not fit.
    pub(crate) fn new(plan: &CudaMemoryPlan<'_>, gpu: &GpuFacts, asked: Asked) -> Result<Self, Failure> {
        let preset = asked.preset.or_else(|| Preset::of_gpu(&gpu.name));
        let (limit, limit_source) = limit(gpu, asked.limit, preset)?;
        let least = asked.max_length.next_multiple_of(PASS_STEP);
        let tokens_per_pass = match asked.tokens {
            Some(tokens) if tokens > LARGEST_PASS => return Err(beyond_the_largest(tokens)),
            Some(tokens) => tokens,
            None => plan.largest_pass(limit, least..=USUAL_PASS.max(least)).unwrap_or(asked.max_length),
        };
        let tokens = tokens_per_pass.max(asked.max_length);
        let memory = plan.memory(tokens);
        let fit = Self { preset, limit, limit_source, tokens_per_pass, memory };
        if memory.total() > limit {
            return Err(fit.refused(plan, gpu, asked, tokens));
        }
        Ok(fit)
    }

    fn refused(self, plan: &CudaMemoryPlan<'_>, gpu: &GpuFacts, asked: Asked, tokens: usize) -> Failure {
        let CudaMemory { weights, buffers, context_reserve, .. } = self.memory;
        let what = format!(
            "passes of {} tokens take {} on GPU {} ({} of weights, {} of buffers, {} for CUDA), expected at most {} ({})",
            thousands(tokens as u64),
            bytes(self.memory.total()),
            gpu.ordinal,
            bytes(weights),
            bytes(buffers),
            bytes(context_reserve),
            bytes(self.limit),
            self.limit_source.as_deref().unwrap_or("--max-memory"),
        );
        let help = if let Some(largest) = plan.largest_pass(self.limit, asked.max_length..=LARGEST_PASS) {
            format!("--tokens-per-pass {largest} fits")
        } else {
            let least = plan.memory(asked.max_length).total();
            let raise = if least <= gpu.free { "--max-memory raises the limit, " } else { "" };
            format!(
                "the least is {}, for passes of one text: {raise}--precision nf4 holds weights in 4 bits, --device cpu \
                     needs no GPU",
                bytes(least)
            )
        };
        Failure::new(code::CONFIG, "E-MEMORY", what, help)
    }
}

/// What a run may take, and who says so: never more than is free.
fn limit(
    gpu: &GpuFacts,
    asked: Option<MemoryLimit>,
    preset: Option<&'static Preset>,
) -> Result<(u64, Option<String>), Failure> {
    if let Some(named) = asked.and_then(|limit| limit.gpu).filter(|named| *named != gpu.ordinal) {
        let what = format!("--max-memory is for GPU {named}, the run is on GPU {}", gpu.ordinal);
        let help = format!("--device cuda:{named} takes that GPU; --max-memory without a number is for any");
        return Err(Failure::new(code::USAGE, "E-MEMORY", what, help));
    }
    let (limit, source) = match (asked, preset) {
        (Some(limit), _) => (limit.amount.of(gpu.total), None),
        (None, Some(preset)) => (preset.limit, Some(format!("preset {}", preset.name))),
        (None, None) => (u64::MAX, None),
    };
    if limit > gpu.free { Ok((gpu.free, Some("free memory".to_owned()))) } else { Ok((limit, source)) }
}

fn beyond_the_largest(tokens: usize) -> Failure {
    let (found, most) = (thousands(tokens as u64), thousands(LARGEST_PASS as u64));
    let what = format!("a pass of {found} tokens, expected at most {most} on a GPU");
    Failure::new(code::USAGE, "E-SETTING", what, "lower --tokens-per-pass or --batch-size")
}

#[cfg(test)]
mod tests {
    use moetrace_cuda::Architecture;
    use moetrace_model::{CudaSettings, ModelConfig, Precision};

    use super::*;
    use crate::device::limit::memory_limit;

    const ASKED: Asked = Asked { limit: None, preset: None, tokens: None, max_length: 512 };

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

    fn fit(precision: Precision, gpu: &GpuFacts, asked: Asked) -> Result<Fit, Failure> {
        let (config, settings) = (config(), CudaSettings { precision, ..CudaSettings::default() });
        Fit::new(&CudaMemoryPlan::new(&config, None, &settings, Architecture::Sm90a).unwrap(), gpu, asked)
    }

    fn gpu(name: &str, free: u64, total: u64) -> GpuFacts {
        let (free, total) = (free * 1_000_000_000, total * 1_000_000_000);
        GpuFacts { ordinal: 0, name: name.to_owned(), free, total, of: 1 }
    }

    #[test]
    fn a_card_with_room_gets_the_usual_pass_and_a_small_one_a_smaller() {
        let large = fit(Precision::Nf4, &gpu("NVIDIA H200", 150, 151), ASKED).unwrap();
        assert_eq!((large.preset, large.limit), (Preset::named("h200"), 134_000_000_000));
        assert_eq!(large.limit_source.as_deref(), Some("preset h200"));
        assert_eq!(large.tokens_per_pass, 40_960);
        let small = fit(Precision::Nf4, &gpu("NVIDIA RTX 4000", 11, 12), ASKED).unwrap();
        assert_eq!((small.preset, small.limit_source.as_deref()), (None, Some("free memory")));
        assert!((4096..40_960).contains(&small.tokens_per_pass), "{small:?}");
        assert!(small.tokens_per_pass.is_multiple_of(512) && small.memory.total() <= small.limit);
    }

    #[test]
    fn a_flag_goes_before_the_preset_and_free_memory_before_both() {
        let card = gpu("NVIDIA GeForce RTX 3090", 24, 25);
        let of = |asked| fit(Precision::Nf4, &card, asked).unwrap();
        let limited = |text| Asked { limit: Some(memory_limit(text).unwrap()), ..ASKED };
        assert_eq!(of(ASKED).limit, 20_000_000_000);
        assert_eq!((of(limited("14GB")).limit, of(limited("14GB")).limit_source), (14_000_000_000, None));
        assert_eq!(of(limited("0=80%")).limit, 20_000_000_000);
        let more = of(limited("90GB"));
        assert_eq!((more.limit, more.limit_source.as_deref()), (24_000_000_000, Some("free memory")));
        let named = of(Asked { preset: Preset::named("low-memory"), ..ASKED });
        assert_eq!((named.limit, named.preset), (16_000_000_000, Preset::named("low-memory")));
    }

    #[test]
    fn what_does_not_fit_is_refused_with_what_would() {
        let card = gpu("NVIDIA GeForce RTX 3090", 24, 25);
        let refused = |precision, asked| fit(precision, &card, asked).unwrap_err();
        let limited = |text, tokens| Asked { limit: Some(memory_limit(text).unwrap()), tokens, ..ASKED };
        let pass = refused(Precision::Nf4, limited("11GB", Some(65_536)));
        assert_eq!((pass.exit, pass.name), (78, "E-MEMORY"));
        assert!(
            pass.what.contains("65,536 tokens") && pass.what.contains("11.00 GB (--max-memory)"),
            "{pass}"
        );
        let help = pass.help.unwrap();
        let tokens = help.split(' ').nth(1).unwrap().parse().unwrap();
        assert_eq!(
            fit(Precision::Nf4, &card, limited("11GB", Some(tokens))).unwrap().tokens_per_pass,
            tokens
        );
        let weights = refused(Precision::Bf16, ASKED).to_string();
        assert!(weights.contains("(preset rtx3090)") && weights.contains("--precision nf4"), "{weights}");
        assert!(!weights.contains("--max-memory raises"), "{weights}");
        let tight = refused(Precision::Nf4, limited("5GB", None)).to_string();
        assert!(tight.contains("--max-memory raises the limit"), "{tight}");
        assert_eq!(refused(Precision::Nf4, Asked { tokens: Some(65_537), ..ASKED }).exit, 2);
        let other = refused(Precision::Nf4, limited("1=20GB", None)).to_string();
        assert!(other.contains("is for GPU 1, the run is on GPU 0"), "{other}");
    }

    #[test]
    fn a_pass_holds_the_longest_text_whatever_was_asked_for() {
        let card = gpu("NVIDIA H200", 150, 151);
        let fitted = |asked| fit(Precision::Nf4, &card, asked).unwrap();
        let long = Asked { max_length: 50_000, ..ASKED };
        assert_eq!(fitted(long).tokens_per_pass, 50_176);
        let asked = fitted(Asked { tokens: Some(512), ..long });
        assert_eq!(
            (asked.tokens_per_pass, asked.memory),
            (512, fitted(Asked { tokens: Some(50_000), ..long }).memory)
        );
    }
}
