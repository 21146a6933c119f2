//! Operations: a kernel each, and the one function that checks its arguments and launches it.
//!
//! Values are rounded to the compute type where the CPU engine rounds them (ARCHITECTURE, "bf16 on the CPU"), but for
//! the weights of attention on tensor cores. Sums run in an order that depends on a row's width alone, or on its place in
//! its span, so that no row's result depends on the rows beside it or on other spans.

mod attention;
mod combine;
mod gather_rows;
mod group_by_expert;
mod grouped_product;
mod nf4_dequantise;
mod nf4_double;
mod nf4_quantise;
mod rms_norm;
mod rotary;
mod router;
mod shared_gate;
mod silu_multiply;
mod token_loss;

use half::{bf16, f16};

pub use attention::{Attention, AttentionHeads, AttentionKernel, AttentionRows, Sequences};
pub use combine::{Combine, ExpertResults, SharedResults};
pub use gather_rows::GatherRows;
pub use group_by_expert::{GroupByExpert, Grouping};
pub use grouped_product::{GatheredRows, GroupedKernel, GroupedProduct, GroupedRows};
pub use nf4_dequantise::{Nf4Dequantise, Nf4Scales, Nf4Stack, Nf4Tables};
pub use nf4_double::{Nf4Double, Nf4DoubleScales};
pub use nf4_quantise::{Nf4Quantise, Nf4Quantised, Nf4Source};
pub use rms_norm::RmsNorm;
pub use rotary::{HeadRows, Rotary, RotaryTables};
pub use router::{Router, RouterOutput, RouterSettings};
pub use shared_gate::SharedGate;
pub use silu_multiply::SiluMultiply;
pub use token_loss::TokenLoss;

use crate::{Element, Kernel, product};

/// Every kernel in every variant.
pub(crate) fn kernels() -> Vec<Kernel> {
    let any = vec![group_by_expert::kernel(), nf4_double::kernel(), token_loss::kernel()];
    let halves = [grouped_product::kernels::<bf16>(), grouped_product::kernels::<f16>()].concat();
    [kernels_of::<bf16>(), kernels_of::<f16>(), kernels_of::<f32>(), any, halves].concat()
}

fn kernels_of<T: Element>() -> Vec<Kernel> {
    let single = [
        combine::kernel::<T>(),
        gather_rows::kernel::<T>(),
        rotary::kernel::<T>(),
        shared_gate::kernel::<T>(),
        silu_multiply::kernel::<T>(),
    ];
    [
        &attention::kernels::<T>()[..],
        &nf4_dequantise::kernels::<T>(),
        &nf4_quantise::kernels::<T>(),
        &rms_norm::kernels::<T>(),
        &router::kernels::<T>(),
        &product::kernels::<T>(),
        &single,
    ]
    .concat()
}
