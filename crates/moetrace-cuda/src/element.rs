//! The types that values are stored in on the device.

use cudarc::driver::{DeviceRepr, ValidAsZeroBits};
use half::{bf16, f16};

mod sealed {
    use cudarc::driver::sys::CUtensorMapDataType;

    pub trait Sealed {
        /// What the copy engine calls it.
        const TENSOR: CUtensorMapDataType;
    }
    impl Sealed for f32 {
        const TENSOR: CUtensorMapDataType = CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT32;
    }
    impl Sealed for half::bf16 {
        const TENSOR: CUtensorMapDataType = CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
    }
    impl Sealed for half::f16 {
        const TENSOR: CUtensorMapDataType = CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
    }
}

/// Numbers that device memory may hold: those of elements, and integers.
pub trait Number: DeviceRepr + ValidAsZeroBits {}

impl<T: DeviceRepr + ValidAsZeroBits> Number for T {}

/// What activations and weights may be: bf16, f16, or f32 for exact comparisons. Kernels compute in f32 and round
/// to this type where the CPU engine does.
pub trait Element:
    DeviceRepr + ValidAsZeroBits + Copy + Default + Send + Sync + 'static + sealed::Sealed
{
    /// Its name in messages.
    const NAME: &'static str;
    /// What tells a kernel of it.
    const DEFINE: &'static str;

    /// The same value in 32 bits.
    fn widen(self) -> f32;

    /// The nearest value of this type, ties to even.
    fn narrow(value: f32) -> Self;
}

impl Element for bf16 {
    const NAME: &'static str = "bf16";
    const DEFINE: &'static str = "ELEMENT_BF16";

    fn widen(self) -> f32 {
        self.to_f32()
    }

    fn narrow(value: f32) -> Self {
        Self::from_f32(value)
    }
}

impl Element for f16 {
    const NAME: &'static str = "f16";
    const DEFINE: &'static str = "ELEMENT_F16";

    fn widen(self) -> f32 {
        self.to_f32()
    }

    fn narrow(value: f32) -> Self {
        Self::from_f32(value)
    }
}

impl Element for f32 {
    const NAME: &'static str = "f32";
    const DEFINE: &'static str = "ELEMENT_F32";

    fn widen(self) -> f32 {
        self
    }

    fn narrow(value: f32) -> Self {
        value
    }
}
