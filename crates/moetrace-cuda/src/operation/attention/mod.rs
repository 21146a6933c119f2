//! Causal attention inside each span of a packed batch.

mod kernel;
mod sequences;

use std::f32::consts::LOG2_E;
use std::marker::PhantomData;

use cudarc::driver::{LaunchConfig, PushKernelArg as _};

pub use self::kernel::AttentionKernel;
use self::kernel::MOST_WIDTH;
pub(super) use self::kernel::kernels;
use self::sequences::QUERIES;
pub use self::sequences::Sequences;
use crate::launch::{Function, count, matrix};
use crate::memory::DeviceId;
use crate::{Compiler, CudaError, Device, Element, Slice, SliceMut};

/// Most heads, as the second dimension of a grid.
const MOST_HEADS: usize = 65_535;

/// Attention in which each row sees the rows of its span up to itself. What it computes for a row depends on that span
/// alone, whatever lies beside it.
#[derive(Debug)]
pub struct Attention<T> {
    function: Function,
    kernel: AttentionKernel,
    heads: AttentionHeads,
    element: PhantomData<T>,
}

/// Heads of an attention layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionHeads {
    /// Heads of queries and of results.
    pub heads: usize,
    /// Heads of keys and values, a divisor of `heads`: each serves as many neighbouring heads.
    pub kv_heads: usize,
    /// Elements of a head, an even number up to 256.
    pub width: usize,
}

/// Rotated queries, keys, and values of N rows; the last row may end with its last head.
#[derive(Debug, Clone, Copy)]
pub struct AttentionRows<'a, T> {
    /// `[N, heads, width]`.
    pub queries: Slice<'a, T>,
    /// `[N, kv_heads, width]`.
    pub keys: Slice<'a, T>,
    /// `[N, kv_heads, width]`.
    pub values: Slice<'a, T>,
    /// Elements from one row's first head to the next row's, the same for all three.
    pub stride: usize,
}

impl<T: Element> Attention<T> {
    /// Compiles the fastest kernel for these heads on this device.
    ///
    /// # Errors
    /// [`CudaError::Value`] for heads that do not fit; what [`Compiler::compile`] fails with,
    /// [`CudaError::DriverTooOld`], [`CudaError::Driver`].
    pub fn new(device: &Device, compiler: &Compiler, heads: AttentionHeads) -> Result<Self, CudaError> {
        let ways = [AttentionKernel::Wgmma, AttentionKernel::Mma];
        let fastest = ways.into_iter().find(|kernel| kernel.suits::<T>(device.architecture(), heads.width));
        Self::with_kernel(device, compiler, heads, fastest.unwrap_or(AttentionKernel::Plain))
    }

    /// Compiles one kernel.
    ///
    /// # Errors
    /// As [`new`](Self::new); [`CudaError::Value`] also where this kernel has no such heads or elements, or is for
    /// another architecture.
    pub fn with_kernel(
        device: &Device,
        compiler: &Compiler,
        heads: AttentionHeads,
        kernel: AttentionKernel,
    ) -> Result<Self, CudaError> {
        heads.check()?;
        if !kernel.suits::<T>(device.architecture(), heads.width) {
            let expected = "one that this attention kernel has, of its elements and for its architecture";
            return Err(CudaError::Value { what: "the width of a head", found: heads.width, expected });
        }
        let function = Function::load(device, compiler, &kernel.source::<T>(heads.width))?
            .with_shared_memory(kernel.shared_bytes(heads.width))?;
        Ok(Self { function, kernel, heads, element: PhantomData })
    }

    /// What it computes with.
    pub fn kernel(&self) -> AttentionKernel {
        self.kernel
    }

    /// Queues the attention of the pass that `sequences` holds, to out `[N, heads, width]`. For tensor cores
    /// all rows begin at multiples of 16 bytes.
    ///
    /// # Errors
    /// [`CudaError::Length`], [`CudaError::Value`], [`CudaError::Alignment`], [`CudaError::OtherDevice`] for
    /// arguments that do not fit; [`CudaError::Driver`].
    pub fn run(
        &self,
        rows: &AttentionRows<'_, T>,
        sequences: &Sequences,
        out: &mut SliceMut<'_, T>,
    ) -> Result<(), CudaError> {
        let AttentionHeads { heads, kv_heads, width } = self.heads;
        let (n, device) = (sequences.tokens(), self.function.device);
        let parts = [
            ("the rows of queries", rows.queries, heads),
            ("the rows of keys", rows.keys, kv_heads),
            ("the rows of values", rows.values, kv_heads),
        ];
        let fast = self.kernel != AttentionKernel::Plain;
        if fast && !(rows.stride * size_of::<T>()).is_multiple_of(16) {
            let (what, expected) = ("the stride", "a multiple of 16 bytes");
            return Err(CudaError::Value { what, found: rows.stride, expected });
        }
        for (what, part, heads) in parts {
            check_rows((what, part), n, (heads * width, rows.stride), device)?;
            if fast {
                part.check_alignment(what, 16)?;
            }
        }
        out.check("the attended rows", matrix("the attended rows", n, heads * width)?, device)?;
        if fast {
            out.check_alignment("the attended rows", 16)?;
        }
        let (tiles, blocks) = sequences.tiles(device)?;
        let (stride, group) = (count("the stride", rows.stride)?, (heads / kv_heads) as u32);
        if blocks == 0 {
            return Ok(());
        }
        let narrow = width as u32;
        let root = (width as f32).sqrt();
        let scale = if fast { LOG2_E / root } else { 1.0 / root };
        let mut launch = self.function.launch();
        launch.arg(&rows.queries.address).arg(&rows.keys.address).arg(&rows.values.address);
        launch.arg(&stride).arg(&group).arg(&tiles.address);
        if !fast {
            launch.arg(&narrow);
        }
        launch.arg(&scale).arg(&out.address);
        // SAFETY: the arguments are those of the kernel, in its order. The tiles are spans that cover rows 0 to N once;
        // the kernel reads the heads of those rows and writes as many results, all found to be there, on this device
        // and, for the fast one, aligned; `out` is borrowed for writing.
        unsafe { launch.launch(self.grid(blocks)) }
            .map(|_| ())
            .map_err(CudaError::driver("launching attention"))
    }

    fn grid(&self, tiles: u32) -> LaunchConfig {
        let (heads, warps) = (self.heads.heads as u32, self.kernel.warps());
        let slices = if self.kernel == AttentionKernel::Plain { QUERIES as u32 / warps } else { 1 };
        let shared_mem_bytes = self.kernel.shared_bytes(self.heads.width);
        LaunchConfig { grid_dim: (tiles, heads, slices), block_dim: (32 * warps, 1, 1), shared_mem_bytes }
    }
}

impl AttentionHeads {
    fn check(self) -> Result<(), CudaError> {
        let refused = |what, found, expected| Err(CudaError::Value { what, found, expected });
        if !self.width.is_multiple_of(2) || !(2..=MOST_WIDTH).contains(&self.width) {
            return refused("the width of a head", self.width, "an even number from 2 to 256");
        }
        if !(1..=MOST_HEADS).contains(&self.heads) {
            return refused("the number of heads", self.heads, "1 to 65,535");
        }
        if self.kv_heads == 0 || !self.heads.is_multiple_of(self.kv_heads) {
            return refused("the number of key heads", self.kv_heads, "a divisor of the number of heads");
        }
        Ok(())
    }
}

/// Fails unless n rows of `used` elements lie there, `stride` apart; the last needs nothing behind them.
fn check_rows<T>(
    (what, rows): (&'static str, Slice<'_, T>),
    n: usize,
    (used, stride): (usize, usize),
    device: DeviceId,
) -> Result<(), CudaError> {
    if stride < used {
        let expected = "no less than a row's heads";
        return Err(CudaError::Value { what: "the stride", found: stride, expected });
    }
    let all = matrix(what, n, stride)?;
    let least = all.saturating_sub(stride - used);
    let expected = if rows.len() < least { least } else { rows.len().min(all) };
    rows.check(what, expected, device)
}
