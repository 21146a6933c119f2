//! Operations: a kernel each, and the one function that checks its arguments and launches it.

mod nf4_dequantise;

use half::{bf16, f16};

pub use nf4_dequantise::{Nf4Dequantise, Nf4Scales, Nf4Tables, Nf4Weights};

use crate::{Element, Kernel};

/// Every kernel in every variant.
pub(crate) fn kernels() -> Vec<Kernel> {
    [kernels_of::<bf16>(), kernels_of::<f16>(), kernels_of::<f32>()].concat()
}

fn kernels_of<T: Element>() -> Vec<Kernel> {
    nf4_dequantise::kernels::<T>().to_vec()
}
