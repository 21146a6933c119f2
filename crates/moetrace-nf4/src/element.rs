//! Elements as checkpoints store them: little-endian bytes of one of three types.

use std::fmt;

use half::{bf16, f16};

/// Type of a dense tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ElementType {
    /// 4 bytes.
    F32,
    /// 2 bytes.
    F16,
    /// 2 bytes.
    Bf16,
}

impl ElementType {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// The name that `quant_state` and PyTorch use.
    pub fn torch_name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
        }
    }

    /// The type of that name, if it is one of the three.
    pub fn from_torch_name(name: &str) -> Option<Self> {
        [Self::F32, Self::F16, Self::Bf16].into_iter().find(|element| element.torch_name() == name)
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.torch_name())
    }
}

/// Elements to be quantised.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Their little-endian bytes, a whole number of elements.
    pub bytes: &'a [u8],
    /// Their type.
    pub element: ElementType,
}

impl<'a> Source<'a> {
    /// How many there are.
    pub fn elements(&self) -> usize {
        self.bytes.len() / self.element.size()
    }

    /// Element `index` as f32; exact for all three types.
    pub(crate) fn get(&self, index: usize) -> f32 {
        let size = self.element.size();
        let bytes = &self.bytes[index * size..][..size];
        match (self.element, bytes) {
            (ElementType::F16, &[a, b]) => f16::from_le_bytes([a, b]).to_f32(),
            (ElementType::Bf16, &[a, b]) => bf16::from_le_bytes([a, b]).to_f32(),
            (_, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
            _ => f32::NAN,
        }
    }

    /// Elements `start..end`.
    pub(crate) fn part(&self, start: usize, end: usize) -> Source<'a> {
        let size = self.element.size();
        Source { bytes: &self.bytes[start * size..end * size], element: self.element }
    }
}
