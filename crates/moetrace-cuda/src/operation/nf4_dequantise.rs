//! 4-bit weights back to elements.

use std::marker::PhantomData;

use cudarc::driver::PushKernelArg as _;
use moetrace_nf4::BlockSize;

use crate::launch::{Function, grid};
use crate::memory::DeviceId;
use crate::{Buffer, Compiler, CudaError, Device, Element, Kernel, Slice, SliceMut};

/// Values of codes, and of 8-bit scales.
const CODES: usize = 16;
const MAP: usize = 256;
/// Threads of a block, and how often each takes eight elements of a tile.
const THREADS: u32 = 256;
const CHUNKS: u32 = 4;
/// Blocks per multiprocessor that walk over the tiles: as many as run at once.
const BLOCKS_PER_MULTIPROCESSOR: u32 = 8;
/// More would overflow the 32-bit count of eights.
const MOST_ELEMENTS: usize = 1 << 33;

/// The tables of a checkpoint on the device: values of the 16 codes, then of the 256 codes of scales.
#[derive(Debug)]
pub struct Nf4Tables(Buffer<f32>);

impl Nf4Tables {
    /// `map` is read only where scales are doubly quantised.
    ///
    /// # Errors
    /// [`CudaError::Driver`].
    pub fn new(device: &Device, values: &[f32; CODES], map: &[f32; MAP]) -> Result<Self, CudaError> {
        Ok(Self(device.upload(&[&values[..], &map[..]].concat())?))
    }
}

/// A 4-bit tensor on the device, as `moetrace_nf4::Nf4Tensor` holds it on the host.
#[derive(Debug, Clone, Copy)]
pub struct Nf4Weights<'a> {
    /// Elements of the tensor, an even number.
    pub elements: usize,
    /// Elements that share a scale.
    pub block: BlockSize,
    /// `[elements / 2]`, the first of two codes in the high half; begins at a multiple of 4 bytes.
    pub codes: Slice<'a, u8>,
    /// The scales of the blocks.
    pub scales: Nf4Scales<'a>,
    /// Of the checkpoint that the tensor is from.
    pub tables: &'a Nf4Tables,
}

/// The scales of a tensor's blocks on the device.
#[derive(Debug, Clone, Copy)]
pub enum Nf4Scales<'a> {
    /// `[blocks]`, one f32 each.
    Plain(Slice<'a, f32>),
    /// 8 bits a block.
    Double {
        /// `[blocks]`.
        codes: Slice<'a, u8>,
        /// One f32 for `block` codes.
        nested: Slice<'a, f32>,
        /// Scales that share a scale of their own.
        block: BlockSize,
        /// Added to every restored scale.
        offset: f32,
    },
}

/// Restores 4-bit weights as `T`, bit-equal to `Nf4Tensor::dequantise`.
#[derive(Debug)]
pub struct Nf4Dequantise<T> {
    double: Function,
    plain: Function,
    output: PhantomData<T>,
}

impl<T: Element> Nf4Dequantise<T> {
    /// Compiles the kernel for plain and for doubly quantised scales.
    ///
    /// # Errors
    /// What [`Compiler::compile`] fails with, [`CudaError::DriverTooOld`], [`CudaError::Driver`].
    pub fn new(device: &Device, compiler: &Compiler) -> Result<Self, CudaError> {
        let [double, plain] = kernels::<T>();
        let load = |kernel| Function::load(device, compiler, kernel);
        Ok(Self { double: load(&double)?, plain: load(&plain)?, output: PhantomData })
    }

    /// Queues the restoring of all elements into `out`, which begins at a multiple of 16 bytes.
    ///
    /// # Errors
    /// [`CudaError::Length`], [`CudaError::Value`], [`CudaError::Alignment`], [`CudaError::OtherDevice`] for
    /// arguments that do not fit; [`CudaError::Driver`].
    pub fn run(&self, weights: &Nf4Weights<'_>, out: &mut SliceMut<'_, T>) -> Result<(), CudaError> {
        check(weights, self.plain.device)?;
        out.check("the restored tensor", weights.elements, self.plain.device)?;
        out.check_alignment("the restored tensor", 16)?;
        if weights.elements == 0 {
            return Ok(());
        }
        let (function, scales, nested, nested_block, offset) = match weights.scales {
            Nf4Scales::Plain(absmax) => (&self.plain, absmax.address, 0u64, 1, 0.0),
            Nf4Scales::Double { codes, nested, block, offset } => {
                (&self.double, codes.address, nested.address, block.get(), offset)
            }
        };
        let tiles = weights.elements.div_ceil((THREADS * CHUNKS) as usize * 8) as u32;
        let blocks = tiles.min(function.multiprocessors * BLOCKS_PER_MULTIPROCESSOR);
        let (block_shift, nested_shift) = (weights.block.get().ilog2(), nested_block.ilog2());
        let (elements, tables) = (weights.elements as u64, weights.tables.0.all().address);
        let mut launch = function.launch();
        launch.arg(&weights.codes.address).arg(&scales).arg(&nested).arg(&tables).arg(&offset);
        launch.arg(&block_shift).arg(&nested_shift).arg(&elements).arg(&out.address);
        // SAFETY: the arguments are those of the kernel, in its order. It reads elements / 2 codes, a scale for each
        // block, a nested scale for each block of those, and the tables, and writes `elements` values, all of which
        // `check` has found to be there, on this device and aligned; `out` is borrowed for writing.
        unsafe { launch.launch(grid(blocks, THREADS)) }
            .map(|_| ())
            .map_err(CudaError::driver("launching nf4_dequantise"))
    }
}

fn check(weights: &Nf4Weights<'_>, device: DeviceId) -> Result<(), CudaError> {
    let found = weights.elements;
    if !found.is_multiple_of(2) || found > MOST_ELEMENTS {
        let expected = "an even number up to 2^33";
        return Err(CudaError::Value { what: "the number of 4-bit elements", found, expected });
    }
    weights.codes.check("the 4-bit codes", found / 2, device)?;
    weights.codes.check_alignment("the 4-bit codes", 4)?;
    weights.tables.0.all().check("the 4-bit tables", CODES + MAP, device)?;
    let blocks = weights.block.blocks(found);
    match weights.scales {
        Nf4Scales::Plain(absmax) => absmax.check("the 4-bit scales", blocks, device),
        Nf4Scales::Double { codes, nested, block, .. } => {
            codes.check("the 4-bit scales' codes", blocks, device)?;
            nested.check("the 4-bit scales' scales", block.blocks(blocks), device)
        }
    }
}

/// For doubly quantised scales, and for plain ones.
pub(super) fn kernels<T: Element>() -> [Kernel; 2] {
    [1, 0].map(|double| {
        Kernel::new::<T>("nf4_dequantise", include_str!("../../kernels/nf4_dequantise.cu"))
            .define("DOUBLE", double)
            .define("CODES", CODES as u32)
            .define("MAP", MAP as u32)
            .define("THREADS", THREADS)
            .define("CHUNKS", CHUNKS)
    })
}
