//! The experts' products, all experts of a layer in one launch.

mod kernel;
mod operands;

use std::marker::PhantomData;

use cudarc::driver::{LaunchConfig, PushKernelArg as _};

pub use self::kernel::GroupedKernel;
pub(super) use self::kernel::kernels;
use self::operands::{Operands, Shape};
use crate::launch::Function;
use crate::tensor_map::TensorMap;
use crate::{Architecture, Compiler, CudaError, Device, Element, Slice, SliceMut};

/// Rows of the boxes in which Hopper's copy engine fetches rows and weights.
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

/// Products of rows with the weights of their experts on tensor cores, in bf16 or f16, summed in f32 in an order that
/// depends on the depth alone: a row's bits are the same whatever rows and experts are beside it.
#[derive(Debug)]
pub struct GroupedProduct<T> {
    gated: Function,
    gathered: Function,
    plain: Function,
    kernel: GroupedKernel,
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
        GroupedKernel::fastest::<T>(architecture).is_some() && multiple(depth) && multiple(width)
    }

    /// Compiles the fastest kernel for this device: for gate and up, the same of gathered rows, and down.
    ///
    /// # Errors
    /// [`CudaError::Unsupported`] for f32; what [`Compiler::compile`] fails with, [`CudaError::DriverTooOld`],
    /// [`CudaError::Driver`].
    pub fn new(device: &Device, compiler: &Compiler) -> Result<Self, CudaError> {
        let fastest = GroupedKernel::fastest::<T>(device.architecture());
        Self::with_kernel(device, compiler, fastest.unwrap_or(GroupedKernel::Mma))
    }

    /// Compiles one kernel.
    ///
    /// # Errors
    /// As [`new`](Self::new); [`CudaError::Unsupported`] also where this kernel is for another architecture.
    pub fn with_kernel(
        device: &Device,
        compiler: &Compiler,
        kernel: GroupedKernel,
    ) -> Result<Self, CudaError> {
        if !kernel.suits::<T>(device.architecture()) {
            return Err(CudaError::Unsupported { what: "a grouped product", needs: kernel.needs() });
        }
        let [gated, gathered, plain] = kernel.sources::<T>();
        let load =
            |source| Function::load(device, compiler, source)?.with_shared_memory(kernel.shared_bytes());
        let element = PhantomData;
        Ok(Self { gated: load(&gated)?, gathered: load(&gathered)?, plain: load(&plain)?, kernel, element })
    }

    /// What it computes with.
    pub fn kernel(&self) -> GroupedKernel {
        self.kernel
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
        self.run(&self.gated, &Operands::grouped(grouped, weights, (2, width)), out)
    }

    /// As [`gate_up`](Self::gate_up), bit by bit, of rows that are fetched where they lie: no buffer `[R, D]` is needed.
    /// On Hopper faster than copying the rows first where experts are narrow, slower where they are wide; the first
    /// lines of that kernel have the figures.
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
        self.run(
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
        self.run(&self.plain, &Operands::grouped(grouped, weights, (1, width)), out)
    }

    fn run(
        &self,
        function: &Function,
        operands: &Operands<'_, T>,
        out: &mut SliceMut<'_, T>,
    ) -> Result<(), CudaError> {
        let shape = operands.check(out, function.device)?;
        if shape.rows == 0 {
            return Ok(());
        }
        let grid = LaunchConfig {
            grid_dim: (self.kernel.blocks(function.multiprocessors), 1, 1),
            block_dim: (self.kernel.threads(), 1, 1),
            shared_mem_bytes: self.kernel.shared_bytes(),
        };
        match self.kernel {
            GroupedKernel::Mma => launch_mma(function, grid, (operands, &shape), out),
            GroupedKernel::Wgmma => launch_wgmma(function, grid, (operands, &shape), out),
        }
    }
}

fn launch_mma<T: Element>(
    function: &Function,
    grid: LaunchConfig,
    (operands, shape): (&Operands<'_, T>, &Shape),
    out: &mut SliceMut<'_, T>,
) -> Result<(), CudaError> {
    // Rows that are grouped have no sources: none are looked at.
    let sources = operands.sources.map_or(0, |sources| sources.address);
    let mut launch = function.launch();
    launch.arg(&operands.rows.address).arg(&shape.lines).arg(&sources).arg(&operands.weights.address);
    launch.arg(&operands.offsets.address).arg(&shape.experts).arg(&shape.rows);
    launch.arg(&shape.depth).arg(&shape.width).arg(&out.address);
    // SAFETY: the arguments are those of the kernel, in its order. It reads rows below their number, through as many
    // sources as there are rows of results where it gathers; the weights of E experts; and E + 1 offsets. It writes
    // rows below `shape.rows` of `out` whatever the offsets say. All of it is on this device and aligned; `out` is
    // borrowed for writing.
    unsafe { launch.launch(grid) }.map(|_| ()).map_err(CudaError::driver("launching grouped_product_mma"))
}

fn launch_wgmma<T: Element>(
    function: &Function,
    grid: LaunchConfig,
    (operands, shape): (&Operands<'_, T>, &Shape),
    out: &mut SliceMut<'_, T>,
) -> Result<(), CudaError> {
    let weights = TensorMap::new(operands.weights, (shape.weights_rows, operands.depth), WEIGHTS_BOX)?;
    let (rows, sources) = match operands.sources {
        // Gathered rows have no boxes: the map is not looked at.
        Some(sources) => (weights, sources.address),
        None => (TensorMap::new(operands.rows, (shape.lines as usize, operands.depth), ROWS_BOX)?, 0),
    };
    let mut launch = function.launch();
    launch.arg(&rows).arg(&weights).arg(&operands.rows.address).arg(&shape.lines).arg(&sources);
    launch.arg(&operands.offsets.address).arg(&shape.experts).arg(&shape.rows);
    launch.arg(&shape.depth).arg(&shape.width).arg(&out.address);
    // SAFETY: the arguments are those of the kernel, in its order. It reads weights, and rows that are grouped, through
    // maps of exactly what was found to be there; tokens below their number, through as many sources as there are
    // rows; and E + 1 offsets. It writes rows below `shape.rows` of `out` whatever the offsets say. All of it is on
    // this device and aligned; `out` is borrowed for writing.
    unsafe { launch.launch(grid) }.map(|_| ()).map_err(CudaError::driver("launching grouped_product"))
}
