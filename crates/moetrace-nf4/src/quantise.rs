//! Elements to codes and block scales.

use rayon::prelude::*;

use crate::code::nearest;
use crate::{BlockSize, Nf4Error, Source};

/// Elements that one thread takes at a time: 128 KiB of bf16, so that two passes over it stay in the cache.
const JOB_ELEMENTS: usize = 65_536;

/// Quantises `source` into `codes` (half as many bytes as elements) and `absmax` (one f32 a block), on the
/// current thread pool. Blocks run over the flattened tensor; the last may be partly filled.
///
/// A block of zeros gets codes 0 and scale 0, as the CUDA library and the CPU library up to 0.49 of
/// bitsandbytes have it (0 times the reciprocal of 0 exceeds no threshold); its newer CPU path stores code 7.
/// Without double quantisation both restore zeros; with it, code 0 restores minus the restored scale.
///
/// # Errors
/// [`Nf4Error::OddElements`], [`Nf4Error::PartLength`] where a buffer has another length, and
/// [`Nf4Error::ElementNotFinite`] with the index of the first NaN or infinity.
pub fn quantise_blocks(
    source: Source<'_>,
    block: BlockSize,
    codes: &mut [u8],
    absmax: &mut [f32],
) -> Result<(), Nf4Error> {
    run(source, block, codes, absmax, best())
}

/// As [`quantise_blocks`], by the scalar functions that define the result: the reference for tests.
///
/// # Errors
/// As [`quantise_blocks`].
pub fn quantise_blocks_scalar(
    source: Source<'_>,
    block: BlockSize,
    codes: &mut [u8],
    absmax: &mut [f32],
) -> Result<(), Nf4Error> {
    run(source, block, codes, absmax, scalar)
}

/// Quantises whole blocks; returns whether every element was finite.
type Kernel = fn(Source<'_>, BlockSize, &mut [u8], &mut [f32]) -> bool;

fn best() -> Kernel {
    #[cfg(target_arch = "x86_64")]
    if crate::avx2::available() {
        return crate::avx2::quantise;
    }
    scalar
}

fn run(
    source: Source<'_>,
    block: BlockSize,
    codes: &mut [u8],
    absmax: &mut [f32],
    kernel: Kernel,
) -> Result<(), Nf4Error> {
    let elements = source.elements();
    if !elements.is_multiple_of(2) {
        return Err(Nf4Error::OddElements { found: elements });
    }
    let lengths = [
        ("source", source.bytes.len(), elements * source.element.size()),
        ("codes", codes.len(), elements / 2),
        ("absmax", absmax.len() * 4, block.blocks(elements) * 4),
    ];
    if let Some((part, found, expected)) = lengths.into_iter().find(|(_, found, expected)| found != expected)
    {
        return Err(Nf4Error::PartLength { part, found, expected });
    }
    let blocks_a_job = JOB_ELEMENTS / block.get();
    let jobs = codes.par_chunks_mut(JOB_ELEMENTS / 2).zip(absmax.par_chunks_mut(blocks_a_job));
    let finite = jobs
        .enumerate()
        .map(|(job, (codes, absmax))| {
            let start = job * JOB_ELEMENTS;
            kernel(source.part(start, start + codes.len() * 2), block, codes, absmax)
        })
        .reduce(|| true, |a, b| a && b);
    if finite {
        return Ok(());
    }
    let index = (0..elements).find(|&index| !source.get(index).is_finite()).unwrap_or(0);
    Err(Nf4Error::ElementNotFinite { index, found: source.get(index) })
}

/// The definition.
pub(crate) fn scalar(source: Source<'_>, block: BlockSize, codes: &mut [u8], absmax: &mut [f32]) -> bool {
    let elements = source.elements();
    let mut finite = true;
    for (number, absmax) in absmax.iter_mut().enumerate() {
        let start = number * block.get();
        let end = elements.min(start + block.get());
        *absmax = (start..end).map(|index| source.get(index).abs()).fold(0.0, f32::max);
        finite &= (start..end).all(|index| source.get(index).is_finite());
        scalar_codes(source.part(start, end), *absmax, &mut codes[start / 2..end / 2]);
    }
    finite
}

/// Codes of elements that share the scale `absmax`.
pub(crate) fn scalar_codes(source: Source<'_>, absmax: f32, codes: &mut [u8]) {
    let reciprocal = 1.0 / absmax;
    for (pair, byte) in codes.iter_mut().enumerate() {
        let code = |index| nearest(source.get(index) * reciprocal);
        *byte = code(2 * pair) << 4 | code(2 * pair + 1);
    }
}
