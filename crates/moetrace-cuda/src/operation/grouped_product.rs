//! The experts' products, all experts of a layer in one launch.

use std::any::TypeId;
use std::marker::PhantomData;

use cudarc::driver::{LaunchConfig, PushKernelArg as _};

use crate::launch::{Function, count, matrix};
use crate::memory::DeviceId;
use crate::tensor_map::TensorMap;
use crate::{Architecture, Compiler, CudaError, Device, Element, Kernel, Slice, SliceMut};

/// A warp that fetches (its group of four sleeps beside it), and two groups of four warps that multiply.
const THREADS: u32 = 384;
/// Pairs of tiles fetched ahead: as many as fit in shared memory.
const STAGES: u32 = 4;
/// Pairs of tiles of rows that pass by the same weights before the next: 2,048 rows, which L2 keeps. From 2 to 32 the
/// speed is the same within the noise.
const ROW_PAIRS: u32 = 8;
/// Experts whose counts fit in what shared memory is left.
const MOST_EXPERTS: u32 = 512;
/// Bytes of a stage, 128 rows and 256 columns of weights 64 deep; of the finished tile; of two barriers a stage; of
/// the counts.
const SHARED: u32 = STAGES * (128 + 256) * 64 * 2 + 128 * 128 * 2 + STAGES * 16 + 4 * (MOST_EXPERTS + 1);
/// Rows of the boxes in which rows and weights are fetched.
const ROWS_BOX: u32 = 64;
const WEIGHTS_BOX: u32 = 128;

/// Rows grouped by expert, on the device.
#[derive(Debug, Clone, Copy)]
pub struct GroupedRows<'a, T> {
    /// `[R, depth]`, expert after expert; begins at a multiple of 16 bytes.
    pub rows: Slice<'a, T>,
    /// Elements of a row, a multiple of eight: D for gate and up, F for down.
    pub depth: usize,
    /// `[E + 1]`, ascending, E at most 512: expert e has the rows from `offsets[e]` to `offsets[e + 1]`. For a product
    /// of all rows with one matrix, `[0, R]`.
    pub offsets: Slice<'a, u32>,
}

/// The same rows where they come from: nobody need copy them together.
#[derive(Debug, Clone, Copy)]
pub struct GatheredRows<'a, T> {
    /// `[N, depth]`; begins at a multiple of 16 bytes, and has less than 2^34 elements.
    pub tokens: Slice<'a, T>,
    /// As [`GroupedRows::depth`].
    pub depth: usize,
    /// `[R]`: the token of each grouped row. One that is no token counts as a row of zeros.
    pub sources: Slice<'a, u32>,
    /// As [`GroupedRows::offsets`].
    pub offsets: Slice<'a, u32>,
}

/// Products of rows with the weights of their experts on Hopper's tensor cores, in bf16 or f16, summed in f32 in an
/// order that depends on the depth alone: a row's bits are the same whatever rows and experts are beside it.
#[derive(Debug)]
pub struct GroupedProduct<T> {
    gated: Function,
    gathered: Function,
    plain: Function,
    element: PhantomData<T>,
}

impl<T: Element> GroupedProduct<T> {
    /// Whether there is a kernel for this device and type, and products of this depth and width are what it takes.
    pub fn supports(device: &Device, depth: usize, width: usize) -> bool {
        Self::supports_on(device.architecture(), depth, width)
    }

    /// As [`supports`](Self::supports), for a device that is not opened yet.
    pub fn supports_on(architecture: Architecture, depth: usize, width: usize) -> bool {
        let multiple = |length: usize| length > 0 && length.is_multiple_of(8);
        exists::<T>(architecture) && multiple(depth) && multiple(width)
    }

    /// Compiles the kernel for gate and up, the same of gathered rows, and down.
    ///
    /// # Errors
    /// [`CudaError::Unsupported`] on anything but an H100 or H200, and for f32; what [`Compiler::compile`] fails
    /// with, [`CudaError::DriverTooOld`], [`CudaError::Driver`].
    pub fn new(device: &Device, compiler: &Compiler) -> Result<Self, CudaError> {
        if !exists::<T>(device.architecture()) {
            let needs = "an H100 or H200, and bf16 or f16";
            return Err(CudaError::Unsupported { what: "a grouped product", needs });
        }
        let [gated, gathered, plain] = kernels::<T>();
        let load = |kernel| Function::load(device, compiler, kernel)?.with_shared_memory(SHARED);
        let element = PhantomData;
        Ok(Self { gated: load(&gated)?, gathered: load(&gathered)?, plain: load(&plain)?, element })
    }

    /// Queues `out = silu(rows gate^T) * (rows up^T)`, rounded once. Weights `[E, 2 F, D]`: an expert's gates in its
    /// first F rows, ups in the others; out `[R, F]`; `width` is F, a multiple of eight. Both begin at multiples of 16
    /// bytes. Rows of no expert are left as they are.
    ///
    /// # Errors
    /// [`CudaError::Length`], [`CudaError::Value`], [`CudaError::Alignment`], [`CudaError::OtherDevice`] for
    /// arguments that do not fit; [`CudaError::Unsupported`], [`CudaError::Driver`].
    pub fn gate_up(
        &self,
        grouped: &GroupedRows<'_, T>,
        weights: Slice<'_, T>,
        width: usize,
        out: &mut SliceMut<'_, T>,
    ) -> Result<(), CudaError> {
        run(&self.gated, &Operands::grouped(grouped, weights, (2, width)), out)
    }

    /// As [`gate_up`](Self::gate_up), bit by bit, of rows that are fetched where they lie: no buffer `[R, D]` is needed.
    /// Faster than copying the rows first where experts are narrow, slower where they are wide; the kernel's first
    /// lines have the figures.
    ///
    /// # Errors
    /// As [`gate_up`](Self::gate_up).
    pub fn gate_up_gathered(
        &self,
        gathered: &GatheredRows<'_, T>,
        weights: Slice<'_, T>,
        width: usize,
        out: &mut SliceMut<'_, T>,
    ) -> Result<(), CudaError> {
        let GatheredRows { tokens, depth, sources, offsets } = *gathered;
        let sources = Some(sources);
        run(
            &self.gathered,
            &Operands { rows: tokens, sources, depth, offsets, weights, matrices: 2, width },
            out,
        )
    }

    /// Queues `out = rows weights^T`. Weights `[E, D, F]`, out `[R, D]`; `width` is D, a multiple of eight. Both begin
    /// at multiples of 16 bytes. Rows of no expert are left as they are.
    ///
    /// # Errors
    /// As [`gate_up`](Self::gate_up).
    pub fn down(
        &self,
        grouped: &GroupedRows<'_, T>,
        weights: Slice<'_, T>,
        width: usize,
        out: &mut SliceMut<'_, T>,
    ) -> Result<(), CudaError> {
        run(&self.plain, &Operands::grouped(grouped, weights, (1, width)), out)
    }
}

/// What a launch reads.
struct Operands<'a, T> {
    rows: Slice<'a, T>,
    /// Where the rows are not grouped already.
    sources: Option<Slice<'a, u32>>,
    depth: usize,
    offsets: Slice<'a, u32>,
    weights: Slice<'a, T>,
    /// Of `width` rows each, in the weights of an expert.
    matrices: usize,
    width: usize,
}

/// Lengths that were found to fit each other.
struct Shape {
    /// Rows of the result.
    rows: u32,
    /// Rows of `Operands::rows`.
    lines: u32,
    experts: u32,
    weights_rows: usize,
    depth: u32,
    width: u32,
}

impl<'a, T: Element> Operands<'a, T> {
    fn grouped(
        grouped: &GroupedRows<'a, T>,
        weights: Slice<'a, T>,
        (matrices, width): (usize, usize),
    ) -> Self {
        let GroupedRows { rows, depth, offsets } = *grouped;
        Self { rows, sources: None, depth, offsets, weights, matrices, width }
    }

    fn check(&self, out: &SliceMut<'_, T>, device: DeviceId) -> Result<Shape, CudaError> {
        let (depth, width) = (self.depth, self.width);
        for (what, found) in [("the products' depth", depth), ("the products' width", width)] {
            if found == 0 || !found.is_multiple_of(8) {
                return Err(CudaError::Value { what, found, expected: "a positive multiple of 8" });
            }
        }
        let (lines, experts) = (self.rows.len() / depth, self.offsets.len().saturating_sub(1));
        if experts == 0 || experts > MOST_EXPERTS as usize {
            let expected = "from 1 to 512";
            return Err(CudaError::Value { what: "the number of experts", found: experts, expected });
        }
        self.rows.check("the experts' rows", matrix("the experts' rows", lines, depth)?, device)?;
        let rows = self.sources.map_or(lines, |sources| sources.len());
        if let Some(sources) = self.sources {
            sources.check("the sources of rows", rows, device)?;
            // The kernel counts elements of tokens by eights.
            count("the tokens' elements by eights", self.rows.len() / 8)?;
        }
        self.offsets.check("the offsets of experts", experts + 1, device)?;
        let weights_rows = matrix("the rows of the weights", experts * self.matrices, width)?;
        self.weights.check(
            "the experts' weights",
            matrix("the experts' weights", weights_rows, depth)?,
            device,
        )?;
        out.check("the products", matrix("the products", rows, width)?, device)?;
        self.rows.check_alignment("the experts' rows", 16)?;
        self.weights.check_alignment("the experts' weights", 16)?;
        out.check_alignment("the products", 16)?;
        count("the rows of the weights", weights_rows)?;
        Ok(Shape {
            rows: count("the number of rows", rows)?,
            lines: count("the number of rows", lines)?,
            experts: experts as u32,
            weights_rows,
            depth: count("the products' depth", depth)?,
            width: count("the products' width", width)?,
        })
    }
}

fn run<T: Element>(
    function: &Function,
    operands: &Operands<'_, T>,
    out: &mut SliceMut<'_, T>,
) -> Result<(), CudaError> {
    let shape = operands.check(out, function.device)?;
    if shape.rows == 0 {
        return Ok(());
    }
    let weights = TensorMap::new(operands.weights, (shape.weights_rows, operands.depth), WEIGHTS_BOX)?;
    let (rows, sources) = match operands.sources {
        // Gathered rows have no boxes: the map is not looked at.
        Some(sources) => (weights, sources.address),
        None => (TensorMap::new(operands.rows, (shape.lines as usize, operands.depth), ROWS_BOX)?, 0),
    };
    // Whole clusters of two, as many as run at once.
    let blocks = (function.multiprocessors / 2 * 2).max(2);
    let mut launch = function.launch();
    launch.arg(&rows).arg(&weights).arg(&operands.rows.address).arg(&shape.lines).arg(&sources);
    launch.arg(&operands.offsets.address).arg(&shape.experts).arg(&shape.rows);
    launch.arg(&shape.depth).arg(&shape.width).arg(&out.address);
    let config =
        LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (THREADS, 1, 1), shared_mem_bytes: SHARED };
    // SAFETY: the arguments are those of the kernel, in its order. It reads weights, and rows that are grouped, through
    // maps of exactly what was found to be there; tokens below their number, through as many sources as there are
    // rows; and E + 1 offsets. It writes rows below `shape.rows` of `out` whatever the offsets say. All of it is on
    // this device and aligned; `out` is borrowed for writing.
    unsafe { launch.launch(config) }.map(|_| ()).map_err(CudaError::driver("launching grouped_product"))
}

fn exists<T: Element>(architecture: Architecture) -> bool {
    architecture == Architecture::Sm90a && TypeId::of::<T>() != TypeId::of::<f32>()
}

/// Gate and up, the same gathered, down.
pub(super) fn kernels<T: Element>() -> [Kernel; 3] {
    let text = concat!(
        include_str!("../../kernels/hopper.cuh"),
        "#line 1 \"grouped_tiles.cuh\"\n",
        include_str!("../../kernels/grouped_tiles.cuh"),
        "#line 1 \"grouped_fetch.cuh\"\n",
        include_str!("../../kernels/grouped_fetch.cuh"),
        "#line 1 \"grouped_product.cu\"\n",
        include_str!("../../kernels/grouped_product.cu")
    );
    [(1, 0), (1, 1), (0, 0)].map(|(gated, gathered)| {
        Kernel::new::<T>("grouped_product", text)
            .only_on(Architecture::Sm90a)
            .define("GATED", gated)
            .define("GATHERED", gathered)
            .define("THREADS", THREADS)
            .define("STAGES", STAGES)
            .define("ROW_PAIRS", ROW_PAIRS)
            .define("EXPERTS", MOST_EXPERTS)
    })
}
