//! Elements to 4-bit weights.

use std::marker::PhantomData;

use cudarc::driver::{LaunchConfig, PushKernelArg as _};
use moetrace_nf4::{BlockSize, THRESHOLDS};

use crate::launch::{Function, matrix};
use crate::{Buffer, Compiler, CudaError, Device, Element, Kernel, Slice, SliceMut};

/// Cells of a sixteenth that scaled values fall into, -1 to 1 and no more; a power of two.
const CELLS: usize = 64;
/// Blocks of so many elements and fewer lie within a warp.
const NARROW: usize = 256;
/// Threads of a block and how often each takes eight elements of a tile, for narrow blocks and for wide ones: 512 times
/// eight are the 4096 elements of the widest.
const NARROW_SHAPE: (u32, u32) = (256, 2);
const WIDE_SHAPE: (u32, u32) = (512, 1);
/// Threads per multiprocessor that walk over the tiles: as many as run at once.
const THREADS_PER_MULTIPROCESSOR: u32 = 2048;
/// More would overflow the 32-bit count of eights.
const MOST_ELEMENTS: usize = 1 << 33;
/// As the second dimension of a grid.
const MOST_TENSORS: usize = 65_535;

/// Tensors of one size that are to be quantised.
#[derive(Debug, Clone, Copy)]
pub struct Nf4Source<'a, T> {
    /// How many there are.
    pub tensors: usize,
    /// Elements of each, an even number; a multiple of 8 if there are several.
    pub elements: usize,
    /// Elements that share a scale.
    pub block: BlockSize,
    /// `[tensors, elements]`, as a checkpoint stores them; begins at a multiple of 16 bytes.
    pub values: Slice<'a, T>,
}

/// Room for what quantising gives.
#[derive(Debug)]
pub struct Nf4Quantised<'a> {
    /// `[tensors, elements / 2]`, the first of two codes in the high half; begins at a multiple of 4 bytes.
    pub codes: SliceMut<'a, u8>,
    /// `[tensors, blocks]`, the scales.
    pub absmax: SliceMut<'a, f32>,
    /// `[tensors]`, the first element of each that is not finite, and [`Nf4Quantised::NONE_REFUSED`] where all are:
    /// what `moetrace_nf4::quantise_blocks` fails with. Codes and scales of a refused tensor mean nothing.
    pub refused: SliceMut<'a, u64>,
}

impl Nf4Quantised<'_> {
    /// Stands in [`refused`](Self::refused) for a tensor whose elements are all finite.
    pub const NONE_REFUSED: u64 = u64::MAX;
}

/// Quantises elements of type `T`, bit-equal to `moetrace_nf4::quantise_blocks`.
#[derive(Debug)]
pub struct Nf4Quantise<T> {
    narrow: Function,
    wide: Function,
    tables: Buffer<u32>,
    input: PhantomData<T>,
}

impl<T: Element> Nf4Quantise<T> {
    /// Compiles the kernel for narrow and for wide blocks, and uploads the thresholds.
    ///
    /// # Errors
    /// What [`Compiler::compile`] fails with, [`CudaError::DriverTooOld`], [`CudaError::Driver`].
    pub fn new(device: &Device, compiler: &Compiler) -> Result<Self, CudaError> {
        let [narrow, wide] = kernels::<T>();
        let load = |kernel| Function::load(device, compiler, kernel);
        let tables = device.upload(&tables())?;
        Ok(Self { narrow: load(&narrow)?, wide: load(&wide)?, tables, input: PhantomData })
    }

    /// Queues the quantising of all tensors.
    ///
    /// # Errors
    /// [`CudaError::Length`], [`CudaError::Value`], [`CudaError::Alignment`], [`CudaError::OtherDevice`] for
    /// arguments that do not fit; [`CudaError::Driver`].
    pub fn run(&self, from: &Nf4Source<'_, T>, to: &mut Nf4Quantised<'_>) -> Result<(), CudaError> {
        self.check(from, to)?;
        let Nf4Source { tensors, elements, block, .. } = *from;
        let (function, (threads, chunks)) =
            if block.get() <= NARROW { (&self.narrow, NARROW_SHAPE) } else { (&self.wide, WIDE_SHAPE) };
        function.set_all_bits(&mut to.refused)?;
        if tensors == 0 || elements == 0 {
            return Ok(());
        }
        let tiles = elements.div_ceil((threads * chunks) as usize * 8) as u32;
        let most = function.multiprocessors * (THREADS_PER_MULTIPROCESSOR / threads);
        let grid_dim = (tiles.min(most.div_ceil(tensors as u32)), tensors as u32, 1);
        let (shift, blocks, elements) = (block.get().ilog2(), block.blocks(elements) as u64, elements as u64);
        let tables = self.tables.all().address;
        let mut launch = function.launch();
        launch.arg(&from.values.address).arg(&tables).arg(&shift).arg(&elements).arg(&blocks);
        launch.arg(&to.codes.address).arg(&to.absmax.address).arg(&to.refused.address);
        let config = LaunchConfig { grid_dim, block_dim: (threads, 1, 1), shared_mem_bytes: 0 };
        // SAFETY: the arguments are those of the kernel, in its order. For each tensor it reads `elements` values and
        // writes half as many codes, a scale for each block and one number, and it reads the tables, all of which `check`
        // has found to be there, on this device and aligned; `to` is borrowed for writing.
        unsafe { launch.launch(config) }.map(|_| ()).map_err(CudaError::driver("launching nf4_quantise"))
    }

    fn check(&self, from: &Nf4Source<'_, T>, to: &Nf4Quantised<'_>) -> Result<(), CudaError> {
        let device = self.narrow.device;
        let Nf4Source { tensors, elements: found, block, values } = *from;
        if tensors > MOST_TENSORS {
            let expected = "at most 65535";
            return Err(CudaError::Value { what: "the number of tensors", found: tensors, expected });
        }
        let expected = if tensors > 1 { "a multiple of 8 up to 2^33" } else { "an even number up to 2^33" };
        if !found.is_multiple_of(if tensors > 1 { 8 } else { 2 }) || found > MOST_ELEMENTS {
            return Err(CudaError::Value { what: "the number of elements to be quantised", found, expected });
        }
        values.check("the elements", matrix("the elements", tensors, found)?, device)?;
        values.check_alignment("the elements", 16)?;
        to.codes.check("the 4-bit codes", tensors * (found / 2), device)?;
        to.codes.check_alignment("the 4-bit codes", 4)?;
        to.absmax.check("the 4-bit scales", tensors * block.blocks(found), device)?;
        to.refused.check("the places of refused elements", tensors, device)
    }
}

/// The cells, each with its threshold and the number of those below it, and then all thresholds.
fn tables() -> Vec<u32> {
    let cells = (0..CELLS).flat_map(|cell| {
        let own = THRESHOLDS.iter().find(|threshold| cell_of(**threshold) == cell);
        let below = THRESHOLDS.iter().filter(|threshold| cell_of(**threshold) < cell).count();
        [own.copied().unwrap_or(f32::INFINITY).to_bits(), below as u32]
    });
    cells.chain(THRESHOLDS.map(f32::to_bits)).collect()
}

/// To the nearest sixteenth, counted from -1 on: the kernel's `cell_of`.
fn cell_of(scaled: f32) -> usize {
    let shifted = scaled * 16.0 + (12_582_912.0 + 16.0);
    shifted.to_bits() as usize % CELLS
}

/// For narrow blocks, and for wide ones.
pub(super) fn kernels<T: Element>() -> [Kernel; 2] {
    [(0, NARROW_SHAPE), (1, WIDE_SHAPE)].map(|(wide, (threads, chunks))| {
        Kernel::new::<T>("nf4_quantise", include_str!("../../kernels/nf4_quantise.cu"))
            .define("WIDE", wide)
            .define("CELLS", CELLS as u32)
            .define("THREADS", threads)
            .define("CHUNKS", chunks)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_threshold_has_a_cell_of_its_own() {
        let cells: Vec<usize> = THRESHOLDS.iter().map(|threshold| cell_of(*threshold)).collect();
        assert!(cells.is_sorted_by(|a, b| a < b), "{cells:?}");
        assert_eq!((cell_of(-1.0), cell_of(1.0), cell_of(1f32.next_up())), (0, 32, 32));
    }

    #[test]
    fn cells_and_their_thresholds_count_what_a_value_exceeds() {
        let tables = tables();
        let near =
            THRESHOLDS.iter().flat_map(|threshold| [threshold.next_down(), *threshold, threshold.next_up()]);
        for value in near.chain((-4096..=4096).map(|i| i as f32 / 4096.0)) {
            let cell = cell_of(value);
            let found = tables[2 * cell + 1] + u32::from(value > f32::from_bits(tables[2 * cell]));
            let expected = THRESHOLDS.iter().filter(|threshold| value > **threshold).count();
            assert_eq!(found as usize, expected, "{value}");
        }
    }
}
