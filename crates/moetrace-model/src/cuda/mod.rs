//! The CUDA engine: what the CPU engine defines, on an NVIDIA GPU.
//!
//! Values are rounded to the compute type at the same points, but for attention in bf16 and f16 at head widths 64 and
//! 128, whose probabilities are rounded before they are divided by their sum, and for gate and up, which are rounded
//! before they are multiplied where the library multiplies them. In f32 nothing is rounded: a mode to compare with.
//!
//! Nothing is allocated in a pass. The host queues operations ahead of the device and waits only for routing that
//! comes back, up to four layers later; for hidden states, if they are asked for; and where experts are multiplied one by
//! one for how many rows each got.

mod arrange;
mod buffers;
mod chunk;
mod engine;
mod feed_forward;
mod load;
mod memory;
mod model;
mod moe;
mod operations;
mod origin;
mod pass;
mod place;
mod placement;
mod places;
mod plan;
mod preset;
mod quantised;
mod read;
mod read_ahead;
mod record;
mod sections;
mod stored;
mod stream;
mod weights;

pub use self::engine::{CudaEngine, CudaSettings};
pub use self::memory::{CudaMemory, CudaMemoryPlan, LARGEST_PASS, LayerBytes, WeightBytes};
pub use self::operations::Gpu;
pub use self::placement::{Place, Placement};
pub use self::plan::{Budget, GpuSpeed, Lack, MOST_PASS, Offload, Planned, Shortfall, SpeedEstimate, Wishes};
pub use self::preset::{PRESETS, Preset};
