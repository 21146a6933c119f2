//! Where weights, hidden states and passes go, within a budget of memory: arithmetic alone, of which nothing needs a GPU.
//!
//! Everything stays on the device where that leaves room for passes of some size. Where it does not, whole layouts are
//! compared: each size of pass and chunk, hidden states on the device or parked, the embedding here or there, and in each as
//! many layers on the device as still fit. What is best depends on the pass. At 65,536 tokens copies hide behind arithmetic
//! and larger chunks are faster, since 4-bit weights are restored once a chunk; at 4,096 tokens every layer that need not
//! be copied counts. So no order is fixed: the estimate of [`speed`] decides. Layouts within 1 % of the fastest count as
//! equal, and of those the one is taken that copies least for a token, in case the bus is slower than was assumed.

mod budget;
mod fill;
mod hidden;
mod layouts;
mod shortfall;
mod speed;
mod timing;
mod work;

pub use self::budget::{Budget, Offload, Wishes};
pub use self::hidden::MOST_PASS;
pub use self::shortfall::{Lack, Shortfall};
pub use self::speed::{GpuSpeed, SpeedEstimate};

use self::layouts::Layouts;
use super::memory::{CudaMemory, CudaMemoryPlan};
use super::placement::Placement;

/// A placement, with what it takes and how fast it should be.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// Where everything goes.
    pub placement: Placement,
    /// What it takes.
    pub memory: CudaMemory,
    /// How fast it should be.
    pub speed: SpeedEstimate,
}

impl CudaMemoryPlan<'_> {
    /// The placement that should be fastest of those within the budget, on a GPU of such speed.
    ///
    /// # Errors
    /// [`Shortfall`], where none is: what it lacks, and the least that would do.
    pub fn place(&self, gpu: GpuSpeed, budget: Budget, wishes: &Wishes) -> Result<Planned, Box<Shortfall>> {
        let layouts = Layouts { plan: self, gpu, budget, wishes };
        let placement = layouts.best().ok_or_else(|| Box::new(layouts.shortfall()))?;
        Ok(self.planned(gpu, placement, wishes.longest))
    }

    /// A placement of one's own, with what it takes and how fast it should be for texts of `longest` tokens.
    pub fn planned(&self, gpu: GpuSpeed, placement: Placement, longest: usize) -> Planned {
        let memory = self.memory_of(&placement);
        let speed = SpeedEstimate::new(self, gpu, &placement, longest);
        Planned { placement, memory, speed }
    }
}
