//! From router logits to a choice of experts.

use std::marker::PhantomData;

use cudarc::driver::PushKernelArg as _;

use crate::launch::{Function, count, grid};
use crate::{Compiler, CudaError, Device, Element, Kernel, Slice, SliceMut};

/// Threads of a block, one warp a token.
const THREADS: u32 = 256;
const WARP: usize = 32;
/// Most experts of a layer, and of a token.
const MOST_EXPERTS: usize = 512;
const MOST_CHOSEN: usize = 32;

/// What decides a choice beside the logits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RouterSettings {
    /// Experts of the layer, at most 512.
    pub experts: usize,
    /// Experts of a token, at most 32.
    pub chosen: usize,
    /// Whether logits and weights are rounded to the compute type.
    pub round_logits: bool,
    /// Whether the scores are.
    pub round_scores: bool,
    /// Whether the weights of a token are divided by their sum.
    pub renormalise: bool,
    /// Added to that sum.
    pub sum_offset: f32,
}

/// Softmax, top-k, weights, margins and entropies; rounds to `T` where the settings say so.
#[derive(Debug)]
pub struct Router<T> {
    function: Function,
    settings: RouterSettings,
    element: PhantomData<T>,
}

/// Where a choice for N tokens goes.
#[derive(Debug)]
pub struct RouterOutput<'a> {
    /// `[N, K]`, by falling score, ties to the lower id.
    pub experts: SliceMut<'a, u16>,
    /// `[N, K]`.
    pub weights: SliceMut<'a, f32>,
    /// `[N]`: score of rank K less that of the next, or the score itself where all experts are chosen.
    pub margins: SliceMut<'a, f32>,
    /// `[N]`, bits.
    pub entropies: SliceMut<'a, f32>,
    /// `[N, E]`: the logits as rounded, if they are wanted.
    pub logits: Option<SliceMut<'a, f32>>,
    /// `[1]`: the first row with a logit that is not finite, `u32::MAX` if there is none.
    pub first_bad: SliceMut<'a, u32>,
}

impl<T: Element> Router<T> {
    /// Compiles the kernel for a layer's experts.
    ///
    /// # Errors
    /// [`CudaError::Value`] for more experts than it can hold; what [`Compiler::compile`] fails with,
    /// [`CudaError::DriverTooOld`], [`CudaError::Driver`].
    pub fn new(device: &Device, compiler: &Compiler, settings: RouterSettings) -> Result<Self, CudaError> {
        let refused = |what, found, expected| Err(CudaError::Value { what, found, expected });
        let (experts, chosen) = (settings.experts, settings.chosen);
        if !(1..=MOST_EXPERTS).contains(&experts) {
            return refused("the number of experts", experts, "1 to 512");
        }
        if !(1..=MOST_CHOSEN.min(experts)).contains(&chosen) {
            return refused("the number of chosen experts", chosen, "1 to 32, and no more than there are");
        }
        let lane_values = experts.div_ceil(WARP).next_power_of_two() as u32;
        let function = Function::load(device, compiler, &kernel::<T>(lane_values))?;
        Ok(Self { function, settings, element: PhantomData })
    }

    /// Queues the choice for logits `[N, E]`, the unrounded product of router input and router weight.
    ///
    /// # Errors
    /// [`CudaError::Length`], [`CudaError::Value`], [`CudaError::Alignment`], [`CudaError::OtherDevice`] for
    /// arguments that do not fit; [`CudaError::Driver`].
    pub fn run(&self, logits: Slice<'_, f32>, out: &mut RouterOutput<'_>) -> Result<(), CudaError> {
        let (e, k, device) = (self.settings.experts, self.settings.chosen, self.function.device);
        let n = logits.len() / e;
        logits.check("the router's logits", n * e, device)?;
        out.experts.check("the place for experts", n * k, device)?;
        out.weights.check("the place for weights", n * k, device)?;
        out.margins.check("the place for margins", n, device)?;
        out.entropies.check("the place for entropies", n, device)?;
        out.first_bad.check("the place for a bad row", 1, device)?;
        let mut rounded = 0u64;
        if let Some(logits) = &out.logits {
            logits.check("the place for rounded logits", n * e, device)?;
            rounded = logits.address;
        }
        let (tokens, count_experts, chosen) = (count("the number of tokens", n)?, e as u32, k as u32);
        let [round_logits, round_scores, renormalise] =
            [self.settings.round_logits, self.settings.round_scores, self.settings.renormalise]
                .map(u32::from);
        self.function.set_all_bits(&mut out.first_bad)?;
        if n == 0 {
            return Ok(());
        }
        let mut launch = self.function.launch();
        launch.arg(&logits.address).arg(&tokens).arg(&count_experts).arg(&chosen);
        launch.arg(&round_logits).arg(&round_scores).arg(&renormalise).arg(&self.settings.sum_offset);
        launch.arg(&out.experts.address).arg(&out.weights.address).arg(&out.margins.address);
        launch.arg(&out.entropies.address).arg(&rounded).arg(&out.first_bad.address);
        // SAFETY: the arguments are those of the kernel, in its order; it reads N rows of E logits and writes N rows of
        // each output that is not null, all found to be there, on this device, and borrowed for writing. E and K are
        // within what it was compiled for.
        unsafe { launch.launch(grid(tokens.div_ceil(THREADS / WARP as u32), THREADS)) }
            .map(|_| ())
            .map_err(CudaError::driver("launching router"))
    }
}

/// For so many experts a lane.
fn kernel<T: Element>(lane_values: u32) -> Kernel {
    Kernel::new::<T>("router", include_str!("../../kernels/router.cu"))
        .define("THREADS", THREADS)
        .define("LANE_VALUES", lane_values)
}

/// Every number of experts a lane.
pub(super) fn kernels<T: Element>() -> [Kernel; 5] {
    [1, 2, 4, 8, 16].map(kernel::<T>)
}
