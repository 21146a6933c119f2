//! Operations: a kernel each, and the one function that checks its arguments and launches it.
//!
//! Values are rounded to the compute type where the CPU engine rounds them (ARCHITECTURE, "bf16 on the CPU"). Sums run
//! in an order that depends on a row's width alone, so that no row's result depends on the rows beside it.

mod combine;
mod gather_rows;
mod nf4_dequantise;
mod rms_norm;
mod rotary;
mod router;
mod silu_multiply;

use half::{bf16, f16};

pub use combine::{Combine, ExpertResults, SharedResults};
pub use gather_rows::GatherRows;
pub use nf4_dequantise::{Nf4Dequantise, Nf4Scales, Nf4Tables, Nf4Weights};
pub use rms_norm::RmsNorm;
pub use rotary::{HeadRows, Rotary, RotaryTables};
pub use router::{Router, RouterOutput, RouterSettings};
pub use silu_multiply::SiluMultiply;

use crate::{Element, Kernel};

/// Every kernel in every variant.
pub(crate) fn kernels() -> Vec<Kernel> {
    [kernels_of::<bf16>(), kernels_of::<f16>(), kernels_of::<f32>()].concat()
}

fn kernels_of<T: Element>() -> Vec<Kernel> {
    let single = [
        combine::kernel::<T>(),
        gather_rows::kernel::<T>(),
        rotary::kernel::<T>(),
        silu_multiply::kernel::<T>(),
    ];
    [&nf4_dequantise::kernels::<T>()[..], &rms_norm::kernels::<T>(), &router::kernels::<T>(), &single]
        .concat()
}
