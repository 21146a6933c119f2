//! The types that values are stored in on the device.

use cudarc::driver::{DeviceRepr, ValidAsZeroBits};
use half::{bf16, f16};

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for half::bf16 {}
    impl Sealed for half::f16 {}
}

/// What activations and weights may be: bf16, f16, or f32 for exact comparisons. Kernels compute in f32 and round
/// to this type where the CPU engine does.
pub trait Element:
    DeviceRepr + ValidAsZeroBits + Copy + Default + Send + Sync + 'static + sealed::Sealed
{
    /// Its name in messages.
    const NAME: &'static str;
    /// What tells a kernel of it.
    const DEFINE: &'static str;
}

impl Element for bf16 {
    const NAME: &'static str = "bf16";
    const DEFINE: &'static str = "ELEMENT_BF16";
}

impl Element for f16 {
    const NAME: &'static str = "f16";
    const DEFINE: &'static str = "ELEMENT_F16";
}

impl Element for f32 {
    const NAME: &'static str = "f32";
    const DEFINE: &'static str = "ELEMENT_F32";
}
