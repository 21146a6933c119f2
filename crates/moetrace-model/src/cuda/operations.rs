//! Every operation that a model needs, compiled once.

use moetrace_cuda::{
    Attention, AttentionHeads, AttentionKernel, Combine, Compiler, CublasLt, CudaError, Device, Element,
    GatherRows, GroupByExpert, GroupedKernel, GroupedProduct, Nf4Dequantise, Product, ProductLibrary,
    ProductShape, RmsNorm, Rotary, Router, RouterSettings, SharedGate, SiluMultiply, TokenLoss,
};

use super::memory::multiplies_grouped;
use crate::cpu::RouterRules;
use crate::{ComputeDtype, ModelConfig};

/// A GPU and what makes its programs.
#[derive(Debug)]
pub struct Gpu {
    /// The GPU.
    pub device: Device,
    /// Compiles kernels for it.
    pub compiler: Compiler,
    /// Multiplies matrices.
    pub cublaslt: CublasLt,
}

/// Tokens of the pass that algorithms are chosen for: the usual size. Not the size of the passes at hand, or a run
/// continued with another would round otherwise.
const USUAL_TOKENS: usize = 40_960;

/// The products of a feed-forward block.
#[derive(Debug)]
pub(super) struct BlockProducts<T> {
    /// D to 2F.
    pub(super) gate_up: Product<T>,
    /// F to D.
    pub(super) down: Product<T>,
}

/// Operations on elements of type `T`.
#[derive(Debug)]
pub(super) struct Operations<T> {
    pub(super) gather: GatherRows<T>,
    pub(super) norm: RmsNorm<T>,
    pub(super) rotary: Rotary<T>,
    pub(super) attention: Attention<T>,
    pub(super) router: Router<T>,
    pub(super) group: GroupByExpert,
    pub(super) silu: SiluMultiply<T>,
    pub(super) combine: Combine<T>,
    pub(super) shared_gate: SharedGate<T>,
    pub(super) dequantise: Nf4Dequantise<T>,
    pub(super) loss: TokenLoss,
    pub(super) qkv: Product<T>,
    pub(super) output: Product<T>,
    pub(super) logits: Product<T, f32>,
    pub(super) expert: BlockProducts<T>,
    /// All experts in one launch, gate, up and activation together, where elements and widths are such.
    pub(super) grouped: Option<GroupedProduct<T>>,
    pub(super) shared: Option<BlockProducts<T>>,
    pub(super) dense: Option<BlockProducts<T>>,
    pub(super) head: Option<Product<T, f32>>,
}

impl<T: Element> Operations<T> {
    /// For a model; `portable` leaves out kernels that only some GPUs have.
    pub(super) fn new(
        gpu: &Gpu,
        config: &ModelConfig,
        rules: &RouterRules,
        (portable, losses): (bool, bool),
    ) -> Result<Self, CudaError> {
        let (device, compiler) = (&gpu.device, &gpu.compiler);
        let library = ProductLibrary::open(device, gpu.cublaslt)?;
        let tokens = USUAL_TOKENS;
        let d = config.hidden();
        let (queries, keys) = (config.heads() * config.head_width(), config.kv_heads() * config.head_width());
        let shape =
            |outputs, inputs, biased, usual_rows| ProductShape { outputs, inputs, biased, usual_rows };
        let product = |outputs, inputs, biased, rows| -> Result<Product<T>, CudaError> {
            Product::new(device, compiler, &library, shape(outputs, inputs, biased, rows))
        };
        let block = |width, rows| -> Result<Option<BlockProducts<T>>, CudaError> {
            if width == 0 {
                return Ok(None);
            }
            let gate_up = product(2 * width, d, false, rows)?;
            Ok(Some(BlockProducts { gate_up, down: product(d, width, false, rows)? }))
        };
        let expert_rows = (tokens * config.chosen()).div_ceil(config.experts());
        let f = config.expert_width();
        let heads =
            AttentionHeads { heads: config.heads(), kv_heads: config.kv_heads(), width: config.head_width() };
        let all_supported = multiplies_grouped::<T>(config, device.architecture());
        let grouped = all_supported.then(|| grouped(gpu, portable)).transpose()?;
        let wide = |outputs| Product::new(device, compiler, &library, shape(outputs, d, false, tokens));
        Ok(Self {
            gather: GatherRows::new(device, compiler)?,
            norm: RmsNorm::new(device, compiler)?,
            rotary: Rotary::new(device, compiler)?,
            attention: attention(gpu, heads, portable)?,
            router: Router::new(device, compiler, router_settings(rules))?,
            group: GroupByExpert::new(device, compiler)?,
            silu: SiluMultiply::new(device, compiler)?,
            combine: Combine::new(device, compiler)?,
            shared_gate: SharedGate::new(device, compiler)?,
            dequantise: Nf4Dequantise::new(device, compiler)?,
            loss: TokenLoss::new(device, compiler)?,
            qkv: product(queries + 2 * keys, d, config.has_qkv_bias(), tokens)?,
            output: product(d, queries, config.has_output_bias(), tokens)?,
            logits: wide(config.experts())?,
            expert: BlockProducts {
                gate_up: product(2 * f, d, false, expert_rows)?,
                down: product(d, f, false, expert_rows)?,
            },
            grouped,
            shared: block(config.shared_width(), tokens)?,
            dense: block(config.dense_width(), tokens)?,
            head: losses.then(|| wide(config.vocab())).transpose()?,
        })
    }
}

/// The fastest kernel, or the fastest that every GPU has.
fn attention<T: Element>(
    gpu: &Gpu,
    heads: AttentionHeads,
    portable: bool,
) -> Result<Attention<T>, CudaError> {
    let (device, compiler) = (&gpu.device, &gpu.compiler);
    let fastest = Attention::new(device, compiler, heads)?;
    if portable && fastest.kernel() == AttentionKernel::Wgmma {
        return Attention::with_kernel(device, compiler, heads, AttentionKernel::Mma);
    }
    Ok(fastest)
}

/// The fastest kernel, or the one that every GPU has.
fn grouped<T: Element>(gpu: &Gpu, portable: bool) -> Result<GroupedProduct<T>, CudaError> {
    let (device, compiler) = (&gpu.device, &gpu.compiler);
    if portable {
        return GroupedProduct::with_kernel(device, compiler, GroupedKernel::Mma);
    }
    GroupedProduct::new(device, compiler)
}

fn router_settings(rules: &RouterRules) -> RouterSettings {
    RouterSettings {
        experts: rules.experts,
        chosen: rules.chosen,
        round_logits: rules.logits != ComputeDtype::F32,
        round_scores: rules.scores != ComputeDtype::F32,
        renormalise: rules.renormalise,
        sum_offset: rules.sum_offset,
    }
}
