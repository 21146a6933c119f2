//! How the store describes a tensor.

use std::path::Path;

use moetrace_nf4::{ElementType, QuantState};
use safetensors::Dtype;

/// How a tensor's elements are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StorageType {
    /// 4 bytes an element.
    F32,
    /// 2 bytes an element.
    F16,
    /// 2 bytes an element.
    Bf16,
    /// Half a byte an element, and scales in tensors of their own.
    Nf4,
}

impl StorageType {
    /// The type of one element; none under NF4.
    pub fn element(self) -> Option<ElementType> {
        match self {
            Self::F32 => Some(ElementType::F32),
            Self::F16 => Some(ElementType::F16),
            Self::Bf16 => Some(ElementType::Bf16),
            Self::Nf4 => None,
        }
    }

    pub(super) fn from_dtype(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F32 => Some(Self::F32),
            Dtype::F16 => Some(Self::F16),
            Dtype::BF16 => Some(Self::Bf16),
            _ => None,
        }
    }
}

/// Where a tensor lies and what it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TensorEntry<'a> {
    /// Its name in the checkpoint.
    pub name: &'a str,
    /// The file that holds it.
    pub file: &'a Path,
    /// Position of its first byte in that file; under NF4 of its first code.
    pub offset: u64,
    /// Its length in bytes; under NF4 codes and scales together.
    pub bytes: usize,
    /// How its elements are stored.
    pub storage: StorageType,
    /// Its dimensions, outermost first; under NF4 those of the tensor that was quantised.
    pub shape: &'a [usize],
    /// How it was quantised, if it was.
    pub quantised: Option<&'a QuantState>,
}
