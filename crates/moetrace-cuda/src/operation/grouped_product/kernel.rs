//! The kernels of the grouped products, and what each can do.

use crate::{Architecture, Element, Kernel};

/// Wgmma: a warp that fetches (its group of four sleeps beside it), and two groups of four warps that multiply.
const WGMMA_THREADS: u32 = 384;
/// Wgmma: pairs of tiles fetched ahead, as many as fit in shared memory.
const WGMMA_STAGES: u32 = 4;
/// Experts whose counts fit in what shared memory Wgmma has left.
pub(super) const MOST_EXPERTS: u32 = 512;
/// Wgmma: bytes of a stage, 128 rows and 256 columns of weights 64 deep; of the finished tile; of two barriers a stage;
/// of the counts.
const WGMMA_SHARED: u32 =
    WGMMA_STAGES * (128 + 256) * 64 * 2 + 128 * 128 * 2 + WGMMA_STAGES * 16 + 4 * (MOST_EXPERTS + 1);
/// Mma: four warps, each of which fetches and multiplies.
const MMA_THREADS: u32 = 128;
/// Mma: blocks that share a multiprocessor, as many as its registers allow.
const MMA_BLOCKS: u32 = 2;
/// Mma: pairs of tiles fetched ahead. Two blocks' take 96 KiB, and each block 1 KiB of its own: 98 of the 100 KiB that
/// a multiprocessor of compute capability 8.6 or 8.9 has.
const MMA_STAGES: u32 = 3;
/// Mma: bytes of the stages, each 128 rows and 128 columns of weights 32 deep. The results, 32 KiB, pass through them.
const MMA_SHARED: u32 = MMA_STAGES * (128 + 128) * 32 * 2;
/// Tiles of 128 rows that pass by the same weights before the next: 2,048 rows, which L2 keeps. From 512 to 8,192 rows
/// the speed of Wgmma is the same within the noise.
const ROW_TILES: u32 = 16;

/// The ways to compute grouped products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupedKernel {
    /// The tensor cores of every supported GPU.
    Mma,
    /// The tensor cores and the copy engine of compute capability 9.0 alone: H100, H200.
    Wgmma,
}

impl GroupedKernel {
    /// The faster one that there is for these elements and this architecture.
    pub(super) fn fastest<T: Element>(architecture: Architecture) -> Option<Self> {
        [Self::Wgmma, Self::Mma].into_iter().find(|kernel| kernel.suits::<T>(architecture))
    }

    pub(super) fn suits<T: Element>(self, architecture: Architecture) -> bool {
        size_of::<T>() == 2 && (self == Self::Mma || architecture == Architecture::Sm90a)
    }

    /// What must be there, for people.
    pub(super) fn needs(self) -> &'static str {
        match self {
            Self::Mma => "bf16 or f16",
            Self::Wgmma => "an H100 or H200, and bf16 or f16",
        }
    }

    pub(super) fn threads(self) -> u32 {
        match self {
            Self::Mma => MMA_THREADS,
            Self::Wgmma => WGMMA_THREADS,
        }
    }

    pub(super) fn shared_bytes(self) -> u32 {
        match self {
            Self::Mma => MMA_SHARED,
            Self::Wgmma => WGMMA_SHARED,
        }
    }

    /// As many as run at once; of Wgmma, whole clusters of two.
    pub(super) fn blocks(self, multiprocessors: u32) -> u32 {
        match self {
            Self::Mma => MMA_BLOCKS * multiprocessors.max(1),
            Self::Wgmma => (multiprocessors / 2 * 2).max(2),
        }
    }

    /// Gate and up, the same gathered, down.
    pub(super) fn sources<T: Element>(self) -> [Kernel; 3] {
        [(1, 0), (1, 1), (0, 0)]
            .map(|(gated, gathered)| self.source::<T>().define("GATED", gated).define("GATHERED", gathered))
    }

    fn source<T: Element>(self) -> Kernel {
        match self {
            Self::Mma => Kernel::new::<T>(
                "grouped_product_mma",
                concat!(
                    include_str!("../../../kernels/mma.cuh"),
                    "#line 1 \"grouped.cuh\"\n",
                    include_str!("../../../kernels/grouped.cuh"),
                    "#line 1 \"grouped_product_mma.cu\"\n",
                    include_str!("../../../kernels/grouped_product_mma.cu")
                ),
            )
            .define("THREADS", MMA_THREADS)
            .define("BLOCKS", MMA_BLOCKS)
            .define("STAGES", MMA_STAGES)
            .define("ROW_TILES", ROW_TILES),
            Self::Wgmma => Kernel::new::<T>(
                "grouped_product",
                concat!(
                    include_str!("../../../kernels/hopper.cuh"),
                    "#line 1 \"grouped.cuh\"\n",
                    include_str!("../../../kernels/grouped.cuh"),
                    "#line 1 \"grouped_tiles.cuh\"\n",
                    include_str!("../../../kernels/grouped_tiles.cuh"),
                    "#line 1 \"grouped_fetch.cuh\"\n",
                    include_str!("../../../kernels/grouped_fetch.cuh"),
                    "#line 1 \"grouped_product.cu\"\n",
                    include_str!("../../../kernels/grouped_product.cu")
                ),
            )
            .only_on(Architecture::Sm90a)
            .define("THREADS", WGMMA_THREADS)
            .define("STAGES", WGMMA_STAGES)
            .define("ROW_PAIRS", ROW_TILES / 2)
            .define("EXPERTS", MOST_EXPERTS),
        }
    }
}

/// All variants.
pub(crate) fn kernels<T: Element>() -> Vec<Kernel> {
    [GroupedKernel::Mma, GroupedKernel::Wgmma].into_iter().flat_map(GroupedKernel::sources::<T>).collect()
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;

    #[test]
    fn every_gpu_has_a_kernel_for_16_bits_and_hopper_its_own() {
        for architecture in Architecture::ALL {
            let hopper = architecture == Architecture::Sm90a;
            let expected = if hopper { GroupedKernel::Wgmma } else { GroupedKernel::Mma };
            assert_eq!(GroupedKernel::fastest::<bf16>(architecture), Some(expected));
            assert_eq!(GroupedKernel::fastest::<f16>(architecture), Some(expected));
            assert_eq!(GroupedKernel::fastest::<f32>(architecture), None);
        }
    }

    /// Per block and per multiprocessor, the CUDA programming guide's table of compute capabilities: 99 and 100 KiB
    /// for 8.6 and 8.9, 163 and 164 for 8.0, 227 and 228 for 9.0. A block takes 1 KiB beside its own.
    #[test]
    fn the_blocks_of_the_portable_kernel_share_the_smallest_multiprocessor() {
        let (kibibyte, kernel) = (1024, GroupedKernel::Mma);
        assert!(kernel.shared_bytes() <= 99 * kibibyte);
        assert!(MMA_BLOCKS * (kernel.shared_bytes() + kibibyte) <= 100 * kibibyte);
        assert!(kernel.shared_bytes() >= MMA_THREADS / 32 * 64 * 64 * 2, "no room for the results");
        // 65,536 registers of a multiprocessor; the kernel takes all that a thread can have.
        assert!(MMA_BLOCKS * kernel.threads() * 256 <= 65_536);
    }
}
