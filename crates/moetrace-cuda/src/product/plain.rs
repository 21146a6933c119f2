//! The kernel that multiplies anything.

use std::any::TypeId;
use std::marker::PhantomData;

use cudarc::driver::{LaunchConfig, PushKernelArg as _};

use super::{ProductShape, checked_rows};
use crate::launch::Function;
use crate::{Compiler, CudaError, Device, Element, Kernel, Slice, SliceMut};

/// Threads of a block, and rows and outputs of its tile: 4 x 4 results a thread.
const THREADS: u32 = 256;
const TILE: u32 = 64;

/// Products by the plain kernel.
#[derive(Debug)]
pub(super) struct PlainProduct<T, O> {
    function: Function,
    types: PhantomData<(T, O)>,
}

impl<T: Element, O: Element> PlainProduct<T, O> {
    pub(super) fn new(device: &Device, compiler: &Compiler) -> Result<Self, CudaError> {
        let wide = TypeId::of::<O>() == TypeId::of::<f32>();
        let function = Function::load(device, compiler, &kernel::<T>(wide))?;
        Ok(Self { function, types: PhantomData })
    }

    pub(super) fn run(
        &self,
        shape: ProductShape,
        x: Slice<'_, T>,
        w: Slice<'_, T>,
        bias: Option<Slice<'_, T>>,
        out: &mut SliceMut<'_, O>,
    ) -> Result<(), CudaError> {
        let rows = checked_rows(shape, x, w, bias, out, self.function.device)?;
        if rows == 0 {
            return Ok(());
        }
        let (outputs, inputs) = (shape.outputs as u32, shape.inputs as u32);
        let added = bias.map_or(0u64, |bias| bias.address);
        let mut launch = self.function.launch();
        launch.arg(&x.address).arg(&w.address).arg(&added);
        launch.arg(&rows).arg(&outputs).arg(&inputs).arg(&out.address);
        let grid_dim = (rows.div_ceil(TILE), outputs.div_ceil(TILE), 1);
        let config = LaunchConfig { grid_dim, block_dim: (THREADS, 1, 1), shared_mem_bytes: 0 };
        // SAFETY: the arguments are those of the kernel, in its order; it reads M x K and N x K elements and a bias of N
        // where it is not null, and writes M x N results, all found to be there and on this device; `out` is borrowed
        // for writing. It was compiled for these two types.
        unsafe { launch.launch(config) }.map(|_| ()).map_err(CudaError::driver("launching product_plain"))
    }
}

fn kernel<T: Element>(wide: bool) -> Kernel {
    Kernel::new::<T>("product_plain", include_str!("../../kernels/product_plain.cu"))
        .define("OUT_F32", u32::from(wide))
        .define("THREADS", THREADS)
        .define("TILE", TILE)
}

/// Results in the elements' type, and in f32.
pub(crate) fn kernels<T: Element>() -> [Kernel; 2] {
    [kernel::<T>(false), kernel::<T>(true)]
}
