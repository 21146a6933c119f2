//! In: numbers in host memory; folders in which CUDA's libraries and a cache may lie.
//! Out: the same numbers after an operation on an NVIDIA GPU, in device memory or copied back.
//! Holds: [`Device`], [`Buffer`], [`Compiler`], the kernels of `kernels/*.cu` and one launcher for each.
//! Not here: models, checkpoints, files but the cache of compiled kernels; it reads no environment variable.
//!
//! Nothing of CUDA is needed to build or to start a program that holds this crate: the driver, NVRTC and cuBLASLt
//! are loaded when [`Libraries`] is asked for them. Kernels are compiled by NVRTC for the GPU at hand.
//!
//! A [`Device`] has one stream, and every operation on its buffers is queued there: operations happen in the order
//! of their calls, and none waits for the host. Only copies to and from the host wait. [`ReadBack`], [`Uploader`],
//! [`Slots`] and [`Parking`] copy on streams of their own, beside the operations, and order themselves with events.

mod architecture;
mod compile;
mod device;
mod element;
mod error;
mod kernel;
mod launch;
mod libraries;
mod listed;
mod memory;
mod nvml;
mod operation;
mod parking;
mod pinned;
mod product;
mod read_back;
mod slots;
mod stopwatch;
mod tensor_map;
mod timeline;
mod upload;

pub use architecture::Architecture;
pub use compile::Compiler;
pub use device::Device;
pub use element::{Element, Number};
pub use error::CudaError;
pub use kernel::{Kernel, all_kernels};
pub use libraries::{CublasLt, Driver, Libraries, Nvrtc, Version};
pub use listed::ListedGpu;
pub use memory::{Buffer, Slice, SliceMut};
pub use operation::{
    Attention, AttentionHeads, AttentionKernel, AttentionRows, Combine, ExpertResults, GatherRows,
    GatheredRows, GroupByExpert, GroupedKernel, GroupedProduct, GroupedRows, Grouping, HeadRows,
    Nf4Dequantise, Nf4Double, Nf4DoubleScales, Nf4Quantise, Nf4Quantised, Nf4Scales, Nf4Source, Nf4Stack,
    Nf4Tables, RmsNorm, Rotary, RotaryTables, Router, RouterOutput, RouterSettings, Sequences, SharedGate,
    SharedResults, SiluMultiply, TokenLoss,
};
pub use parking::Parking;
pub use pinned::Pinned;
pub use product::{Product, ProductLibrary, ProductShape};
pub use read_back::ReadBack;
pub use slots::{Room, Slots};
pub use stopwatch::Stopwatch;
pub use timeline::Timeline;
pub use upload::{Uploader, UploaderSettings};
