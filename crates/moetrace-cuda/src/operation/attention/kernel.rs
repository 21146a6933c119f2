//! The kernels of attention, and what each can do.

use super::sequences::QUERIES;
use crate::{Architecture, Element, Kernel};

/// Head widths of the kernels for tensor cores, the keys that they take at a time, and their warps, which share a
/// tile's query rows.
const FAST_WIDTHS: [usize; 2] = [64, 128];
const KEYS: u32 = 64;
const MMA_WARPS: u32 = 4;
const WGMMA_WARPS: u32 = 8;
/// Widest head of the plain kernel, and its warps, each of which takes one query row.
pub(super) const MOST_WIDTH: usize = 256;
const PLAIN_WARPS: u32 = 8;

/// A kernel's text behind what both kernels for tensor cores begin with.
macro_rules! with_head {
    ($file:literal) => {
        concat!(
            include_str!("../../../kernels/mma.cuh"),
            "#line 1 \"attention.cuh\"\n",
            include_str!("../../../kernels/attention.cuh"),
            concat!("#line 1 \"", $file, "\"\n"),
            include_str!(concat!("../../../kernels/", $file))
        )
    };
}

/// The ways to compute attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttentionKernel {
    /// Any element, any even width up to 256; weights are divided by their sum, then rounded, as the CPU engine does.
    Plain,
    /// Tensor cores; bf16 and f16 in heads of 64 or 128. Weights are rounded before they are divided by their sum.
    Mma,
    /// As [`Mma`](Self::Mma), with the instructions of compute capability 9.0 alone.
    Wgmma,
}

impl AttentionKernel {
    pub(super) fn suits<T: Element>(self, architecture: Architecture, width: usize) -> bool {
        let fits = size_of::<T>() == 2 && FAST_WIDTHS.contains(&width);
        match self {
            Self::Plain => true,
            Self::Mma => fits,
            Self::Wgmma => fits && architecture == Architecture::Sm90a,
        }
    }

    pub(super) fn warps(self) -> u32 {
        match self {
            Self::Plain => PLAIN_WARPS,
            Self::Mma => MMA_WARPS,
            Self::Wgmma => WGMMA_WARPS,
        }
    }

    /// Dynamic shared memory: a tile's queries and three times keys or values, of 16 bits each.
    pub(super) fn shared_bytes(self, width: usize) -> u32 {
        if self == Self::Plain { 0 } else { (QUERIES as u32 + 3 * KEYS) * 2 * width as u32 }
    }

    pub(super) fn source<T: Element>(self, width: usize) -> Kernel {
        let (name, text) = match self {
            Self::Plain => {
                return Kernel::new::<T>(
                    "attention_plain",
                    include_str!("../../../kernels/attention_plain.cu"),
                )
                .define("MOST_WIDTH", MOST_WIDTH as u32)
                .define("WARPS", self.warps());
            }
            Self::Mma => ("attention", with_head!("attention.cu")),
            Self::Wgmma => ("attention_wgmma", with_head!("attention_wgmma.cu")),
        };
        Kernel::new::<T>(name, text)
            .define("WIDTH", width as u32)
            .define("QUERIES", QUERIES as u32)
            .define("KEYS", KEYS)
            .define("WARPS", self.warps())
            .define("BLOCKS", self.blocks(width))
    }

    /// Blocks of a multiprocessor, as many as registers allow.
    fn blocks(self, width: usize) -> u32 {
        match (self, width) {
            (Self::Mma, 64) => 3,
            _ => 2,
        }
    }
}

/// All variants.
pub(crate) fn kernels<T: Element>() -> Vec<Kernel> {
    let ways = [AttentionKernel::Mma, AttentionKernel::Wgmma];
    let suited = FAST_WIDTHS.into_iter().flat_map(|width| ways.map(|kernel| (kernel, width)));
    suited
        .filter(|(kernel, width)| kernel.suits::<T>(Architecture::Sm90a, *width))
        .chain([(AttentionKernel::Plain, MOST_WIDTH)])
        .map(|(kernel, width)| kernel.source::<T>(width))
        .collect()
}
