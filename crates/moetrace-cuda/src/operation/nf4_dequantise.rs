//! 4-bit weights back to elements.

use std::marker::PhantomData;

use cudarc::driver::{LaunchConfig, PushKernelArg as _};
use moetrace_nf4::BlockSize;

use crate::launch::{Function, matrix};
use crate::memory::DeviceId;
use crate::{Buffer, Compiler, CudaError, Device, Element, Kernel, Slice, SliceMut};

/// Values of codes, and of 8-bit scales.
const CODES: usize = 16;
const MAP: usize = 256;
/// Threads of a block, and how often each takes eight elements; the kernel's text says why.
const THREADS: u32 = 256;
const CHUNKS: u32 = 2;
/// Elements that a block restores.
const TILE: usize = (THREADS * CHUNKS) as usize * 8;
/// More would overflow the 32-bit count of eights.
const MOST_ELEMENTS: usize = 1 << 33;
/// The most blocks that a grid has in its second direction.
const MOST_TENSORS: usize = 65_535;

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

/// 4-bit tensors of the same length, one behind the other on the device; each is what a `moetrace_nf4::Nf4Tensor`
/// holds on the host. A single tensor is a stack of one. Some of a stack is a stack of parts of its slices.
#[derive(Debug, Clone, Copy)]
pub struct Nf4Stack<'a> {
    /// Tensors, at most 65,535.
    pub tensors: usize,
    /// Elements of each tensor: an even number, and a multiple of 8 where there are several tensors.
    pub elements: usize,
    /// Elements that share a scale.
    pub block: BlockSize,
    /// `[tensors, elements / 2]`, the first of two codes in the high half; begins at a multiple of 4 bytes.
    pub codes: Slice<'a, u8>,
    /// The scales of the blocks.
    pub scales: Nf4Scales<'a>,
    /// Of the checkpoint that the tensors are from.
    pub tables: &'a Nf4Tables,
}

/// The scales of a stack's blocks on the device. `blocks` are those of one tensor: `block.blocks(elements)`.
#[derive(Debug, Clone, Copy)]
pub enum Nf4Scales<'a> {
    /// `[tensors, blocks]`, one f32 each.
    Plain(Slice<'a, f32>),
    /// 8 bits a block.
    Double {
        /// `[tensors, blocks]`.
        codes: Slice<'a, u8>,
        /// `[tensors, block.blocks(blocks)]`: one f32 for `block` codes of a tensor.
        nested: Slice<'a, f32>,
        /// `[tensors]`, added to every restored scale of a tensor.
        offsets: Slice<'a, f32>,
        /// Scales that share a scale of their own.
        block: BlockSize,
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

    /// Queues the restoring of all elements into `out`, `[tensors, elements]`, which begins at a multiple of 16 bytes.
    ///
    /// # Errors
    /// [`CudaError::Length`], [`CudaError::Value`], [`CudaError::Alignment`], [`CudaError::OtherDevice`] for
    /// arguments that do not fit; [`CudaError::Driver`].
    pub fn run(&self, stack: &Nf4Stack<'_>, out: &mut SliceMut<'_, T>) -> Result<(), CudaError> {
        check(stack, self.plain.device)?;
        out.check("the restored tensors", stack.tensors * stack.elements, self.plain.device)?;
        out.check_alignment("the restored tensors", 16)?;
        if out.is_empty() {
            return Ok(());
        }
        let (function, scales, nested, offsets, nested_block) = match stack.scales {
            Nf4Scales::Plain(absmax) => (&self.plain, absmax.address, 0u64, 0u64, BlockSize::DEFAULT),
            Nf4Scales::Double { codes, nested, offsets, block } => {
                (&self.double, codes.address, nested.address, offsets.address, block)
            }
        };
        let (block_shift, nested_shift) = (stack.block.get().ilog2(), nested_block.get().ilog2());
        let blocks = stack.block.blocks(stack.elements);
        let (blocks, nested_blocks) = (blocks as u64, nested_block.blocks(blocks) as u64);
        let (elements, tables) = (stack.elements as u64, stack.tables.0.all().address);
        let mut launch = function.launch();
        launch.arg(&stack.codes.address).arg(&scales).arg(&nested).arg(&offsets).arg(&tables);
        launch.arg(&block_shift).arg(&nested_shift).arg(&blocks).arg(&nested_blocks);
        launch.arg(&elements).arg(&out.address);
        let grid_dim = (stack.elements.div_ceil(TILE) as u32, stack.tensors as u32, 1);
        let config = LaunchConfig { grid_dim, block_dim: (THREADS, 1, 1), shared_mem_bytes: 0 };
        // SAFETY: the arguments are those of the kernel, in its order. For each tensor it reads elements / 2 bytes of
        // codes, a scale for each block, a nested scale for each block of those and an offset, and once the tables,
        // and writes `elements` values, all of which `check` and the checks of `out` have found to be there, on this
        // device and aligned, also behind the first tensor; `out` is borrowed for writing.
        unsafe { launch.launch(config) }.map(|_| ()).map_err(CudaError::driver("launching nf4_dequantise"))
    }
}

/// After it, `tensors * elements` overflows nothing.
fn check(stack: &Nf4Stack<'_>, device: DeviceId) -> Result<(), CudaError> {
    let (tensors, elements) = (stack.tensors, stack.elements);
    if tensors > MOST_TENSORS {
        let expected = "at most 65535, which a grid has room for";
        return Err(CudaError::Value { what: "the number of 4-bit tensors", found: tensors, expected });
    }
    let (multiple, expected) = match tensors {
        0 | 1 => (2, "an even number up to 2^33"),
        _ => (8, "a multiple of 8 up to 2^33, since there are several tensors"),
    };
    if !elements.is_multiple_of(multiple) || elements > MOST_ELEMENTS {
        let what = "the number of 4-bit elements";
        return Err(CudaError::Value { what, found: elements, expected });
    }
    let all = |each: usize| matrix("the number of 4-bit tensors", tensors, each);
    all(elements)?;
    stack.codes.check("the 4-bit codes", all(elements / 2)?, device)?;
    stack.codes.check_alignment("the 4-bit codes", 4)?;
    stack.tables.0.all().check("the 4-bit tables", CODES + MAP, device)?;
    let blocks = stack.block.blocks(elements);
    match stack.scales {
        Nf4Scales::Plain(absmax) => absmax.check("the 4-bit scales", all(blocks)?, device),
        Nf4Scales::Double { codes, nested, offsets, block } => {
            codes.check("the 4-bit scales' codes", all(blocks)?, device)?;
            nested.check("the 4-bit scales' scales", all(block.blocks(blocks))?, device)?;
            offsets.check("the 4-bit scales' offsets", tensors, device)
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
