//! In: weights as little-endian bytes (f32, f16, bf16); or the tensors of a 4-bit checkpoint as bytes.
//! Out: NF4 codes and their block scales; or the weights again; or the `quant_state` that describes them.
//! Holds: [`Nf4Tensor`], [`Nf4Settings`], [`QuantState`], the code values, thresholds and the 8-bit map of scales.
//! Not here: files, tensor names, devices, models; it reads no environment variable and prints nothing.
//!
//! NF4 is the 4-bit code of Dettmers et al., "`QLoRA`: Efficient Finetuning of Quantized LLMs" (arXiv 2305.14314),
//! as the bitsandbytes library stores it. This crate is its definition here: the scalar functions are the
//! reference, the AVX2 ones are tested to equal them bit by bit, and GPU kernels must.
//!
//! A tensor is flattened row by row and cut into blocks of [`BlockSize`] elements. Each block has a scale, its
//! largest magnitude (`absmax`); an element's code is the number of [`THRESHOLDS`] that `x * (1 / absmax)`
//! exceeds. Byte `i` holds code `2i` in its high half and code `2i + 1` in its low half. Scales are f32, or
//! 8-bit codes of [`DYNAMIC_MAP`] scaled in blocks of 256 around their mean (double quantisation).
//!
//! Rounding is fixed: a restored scale is `map[q] * nested`, rounded, then `+ offset`, rounded; an element is
//! `code * scale` in f32, rounded once to the target type. Nothing is fused.

mod code;
mod dequantise;
mod double;
mod dynamic_map;
mod element;
mod error;
mod python_float;
mod quantise;
mod settings;
mod state;
mod tensor;

#[cfg(target_arch = "x86_64")]
mod avx2;

pub use code::{CODE_VALUES, THRESHOLDS};
pub use dequantise::Target;
pub use double::DoubleQuantised;
pub use dynamic_map::{DYNAMIC_MAP, ScaleMap};
pub use element::{ElementType, Source};
pub use error::Nf4Error;
pub use python_float::python_float;
pub use quantise::{quantise_blocks, quantise_blocks_scalar};
pub use settings::{BlockSize, Nf4Settings};
pub use state::{NestedState, QuantState};
pub use tensor::{Nf4Tensor, Scales};
