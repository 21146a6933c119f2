//! From logits over the vocabulary to a token's loss.

use cudarc::driver::PushKernelArg as _;

use crate::launch::{Function, count, grid, matrix};
use crate::{Compiler, CudaError, Device, Kernel, Slice, SliceMut};

/// Threads of a block, which takes one row.
const THREADS: u32 = 512;

/// Cross-entropy in nats of one token a row.
#[derive(Debug)]
pub struct TokenLoss {
    function: Function,
}

impl TokenLoss {
    /// Compiles the kernel.
    ///
    /// # Errors
    /// What [`Compiler::compile`] fails with, [`CudaError::DriverTooOld`], [`CudaError::Driver`].
    pub fn new(device: &Device, compiler: &Compiler) -> Result<Self, CudaError> {
        Ok(Self { function: Function::load(device, compiler, &kernel())? })
    }

    /// Queues the losses `[n]` of targets `[n]` under logits `[n, V]`; NaN for a target outside the vocabulary.
    ///
    /// # Errors
    /// [`CudaError::Length`], [`CudaError::Value`], [`CudaError::OtherDevice`] for arguments that do not fit;
    /// [`CudaError::Driver`].
    pub fn run(
        &self,
        logits: Slice<'_, f32>,
        vocabulary: usize,
        targets: Slice<'_, u32>,
        losses: &mut SliceMut<'_, f32>,
    ) -> Result<(), CudaError> {
        let (n, device) = (losses.len(), self.function.device);
        logits.check("the logits", matrix("the logits", n, vocabulary)?, device)?;
        targets.check("the tokens to be predicted", n, device)?;
        losses.check("the losses", n, device)?;
        let (rows, vocabulary) = (count("the number of rows", n)?, count("the vocabulary", vocabulary)?);
        if n == 0 {
            return Ok(());
        }
        let mut launch = self.function.launch();
        launch.arg(&logits.address).arg(&targets.address).arg(&vocabulary).arg(&losses.address);
        // SAFETY: the arguments are those of the kernel, in its order; it reads n rows of logits and n targets and writes
        // n losses, all found to be there and on this device; `losses` is borrowed for writing.
        unsafe { launch.launch(grid(rows, THREADS)) }
            .map(|_| ())
            .map_err(CudaError::driver("launching token_loss"))
    }
}

/// It handles no elements; any of their types will do.
pub(super) fn kernel() -> Kernel {
    Kernel::new::<f32>("token_loss", include_str!("../../kernels/token_loss.cu")).define("THREADS", THREADS)
}
