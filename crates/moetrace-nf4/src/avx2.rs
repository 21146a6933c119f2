//! The two inner loops for processors with AVX2 and F16C. Each equals its scalar definition bit by bit.

use std::arch::x86_64::{
    __m256, __m256i, _CMP_GT_OQ, _MM_FROUND_TO_NEAREST_INT, _mm_loadu_si128, _mm_storeu_si128,
    _mm_unpackhi_epi64, _mm_unpacklo_epi32, _mm_unpacklo_epi64, _mm256_add_epi32, _mm256_and_si256,
    _mm256_blendv_ps, _mm256_broadcastsi128_si256, _mm256_castps_si256, _mm256_castsi256_ps,
    _mm256_castsi256_si128, _mm256_cmp_ps, _mm256_cvtepu16_epi32, _mm256_cvtph_ps, _mm256_cvtps_ph,
    _mm256_extracti128_si256, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_maddubs_epi16, _mm256_max_epu32,
    _mm256_mul_ps, _mm256_packus_epi16, _mm256_packus_epi32, _mm256_permute2x128_si256,
    _mm256_permute4x64_epi64, _mm256_permutevar8x32_epi32, _mm256_permutevar8x32_ps, _mm256_set1_epi8,
    _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setr_epi8, _mm256_setr_epi32,
    _mm256_setr_ps, _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_slli_epi32, _mm256_srli_epi16,
    _mm256_srli_epi32, _mm256_srlv_epi32, _mm256_storeu_ps, _mm256_storeu_si256, _mm256_sub_epi32,
    _mm256_unpackhi_epi8, _mm256_unpacklo_epi8,
};

use crate::dequantise::{Blocks, expand_scalar, parts};
use crate::quantise::scalar_codes;
use crate::{BlockSize, ElementType, Source, THRESHOLDS};

/// Elements that one round of either loop handles.
const ROUND: usize = 64;

/// Whether this processor has what the loops use; the answer is cached by the standard library.
#[inline]
pub(crate) fn available() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c")
}

/// As `quantise::scalar`. Call it only where [`available`] is true.
pub(crate) fn quantise(source: Source<'_>, block: BlockSize, codes: &mut [u8], absmax: &mut [f32]) -> bool {
    assert!(available(), "AVX2 and F16C are missing");
    // SAFETY: the features that the function is compiled for were found just now.
    unsafe {
        match source.element {
            ElementType::F32 => quantise_as::<F32>(source, block, codes, absmax),
            ElementType::F16 => quantise_as::<F16>(source, block, codes, absmax),
            ElementType::Bf16 => quantise_as::<Bf16>(source, block, codes, absmax),
        }
    }
}

/// Blocks as bf16 bits. Call it only where [`available`] is true.
pub(crate) fn restore_bf16<S: Fn(usize) -> f32>(blocks: &Blocks<'_, S>, out: &mut [u16]) {
    assert!(available(), "AVX2 and F16C are missing");
    // SAFETY: the features that the function is compiled for were found just now.
    unsafe { restore_halves::<Bf16, S>(blocks, out) }
}

/// Blocks as f16 bits. Call it only where [`available`] is true.
pub(crate) fn restore_f16<S: Fn(usize) -> f32>(blocks: &Blocks<'_, S>, out: &mut [u16]) {
    assert!(available(), "AVX2 and F16C are missing");
    // SAFETY: the features that the function is compiled for were found just now.
    unsafe { restore_halves::<F16, S>(blocks, out) }
}

/// Blocks as f32, each value of a block rounded by `round`. Call it only where [`available`] is true.
pub(crate) fn restore_f32<S: Fn(usize) -> f32>(
    blocks: &Blocks<'_, S>,
    out: &mut [f32],
    round: impl Fn(f32) -> f32,
) {
    assert!(available(), "AVX2 and F16C are missing");
    // SAFETY: the features that the function is compiled for were found just now.
    unsafe { restore_words(blocks, out, round) }
}

/// Eight elements as f32.
trait Load {
    const SIZE: usize;
    fn eight(bytes: &[u8]) -> __m256;
}

/// Eight f32 rounded to 16 bits, in the low halves of 32-bit lanes.
trait Round {
    fn eight(values: __m256) -> __m256i;
}

struct F32;
struct F16;
struct Bf16;

impl Round for Bf16 {
    #[expect(
        clippy::inline_always,
        reason = "only inside a caller compiled for AVX2 is this five instructions"
    )]
    #[inline(always)]
    fn eight(values: __m256) -> __m256i {
        // SAFETY: called from functions compiled for AVX2. To nearest, ties to even: half of the last place less
        // one, and one more where that place is odd.
        unsafe {
            let bits = _mm256_castps_si256(values);
            let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
            let rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7FFF)), odd);
            _mm256_srli_epi32::<16>(rounded)
        }
    }
}

impl Round for F16 {
    #[expect(
        clippy::inline_always,
        reason = "only inside a caller compiled for F16C is this two instructions"
    )]
    #[inline(always)]
    fn eight(values: __m256) -> __m256i {
        // SAFETY: called from functions compiled for F16C.
        unsafe { _mm256_cvtepu16_epi32(_mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(values)) }
    }
}

impl Load for F32 {
    const SIZE: usize = 4;
    #[expect(
        clippy::inline_always,
        reason = "only inside a caller compiled for AVX2 is this one instruction"
    )]
    #[inline(always)]
    fn eight(bytes: &[u8]) -> __m256 {
        let bytes: &[u8; 32] = bytes.first_chunk().unwrap_or(&[0; 32]);
        // SAFETY: an unaligned load of 32 bytes that are there; called from functions compiled for AVX2.
        unsafe { _mm256_loadu_ps(bytes.as_ptr().cast()) }
    }
}

impl Load for F16 {
    const SIZE: usize = 2;
    #[expect(
        clippy::inline_always,
        reason = "only inside a caller compiled for AVX2 is this one instruction"
    )]
    #[inline(always)]
    fn eight(bytes: &[u8]) -> __m256 {
        let bytes: &[u8; 16] = bytes.first_chunk().unwrap_or(&[0; 16]);
        // SAFETY: an unaligned load of 16 bytes that are there; called from functions compiled for F16C.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(bytes.as_ptr().cast())) }
    }
}

impl Load for Bf16 {
    const SIZE: usize = 2;
    #[expect(
        clippy::inline_always,
        reason = "only inside a caller compiled for AVX2 is this one instruction"
    )]
    #[inline(always)]
    fn eight(bytes: &[u8]) -> __m256 {
        let bytes: &[u8; 16] = bytes.first_chunk().unwrap_or(&[0; 16]);
        // SAFETY: an unaligned load of 16 bytes that are there; called from functions compiled for AVX2.
        unsafe {
            let halves = _mm_loadu_si128(bytes.as_ptr().cast());
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(halves)))
        }
    }
}

#[target_feature(enable = "avx2,f16c")]
fn quantise_as<L: Load>(source: Source<'_>, block: BlockSize, codes: &mut [u8], absmax: &mut [f32]) -> bool {
    let tables = Tables::new();
    let mut largest_bits = 0;
    let blocks = source.bytes.chunks(block.get() * L::SIZE).zip(codes.chunks_mut(block.get() / 2));
    for ((bytes, codes), absmax) in blocks.zip(absmax) {
        let part = Source { bytes, element: source.element };
        let bits = absmax_bits::<L>(part);
        largest_bits = largest_bits.max(bits);
        *absmax = f32::from_bits(bits);
        let reciprocal = _mm256_set1_ps(1.0 / *absmax);
        let (code_rounds, code_rest) = codes.as_chunks_mut::<{ ROUND / 2 }>();
        let (rounds, rest) = bytes.split_at(code_rounds.len() * ROUND * L::SIZE);
        for (bytes, codes) in rounds.chunks_exact(ROUND * L::SIZE).zip(code_rounds) {
            let mut eights = bytes.chunks_exact(8 * L::SIZE);
            let mut next = || tables.codes(_mm256_mul_ps(L::eight(eights.next().unwrap_or(&[])), reciprocal));
            let packed = pack([next(), next(), next(), next(), next(), next(), next(), next()]);
            // SAFETY: an unaligned store into the 32 bytes of `codes`.
            unsafe { _mm256_storeu_si256(codes.as_mut_ptr().cast(), packed) };
        }
        scalar_codes(Source { bytes: rest, element: source.element }, *absmax, code_rest);
    }
    largest_bits < f32::INFINITY.to_bits()
}

/// Bits of the largest magnitude: magnitudes order as their bits do, and infinities and NaNs come last.
#[target_feature(enable = "avx2,f16c")]
fn absmax_bits<L: Load>(part: Source<'_>) -> u32 {
    let magnitude = _mm256_set1_epi32(0x7FFF_FFFF);
    let mut largest = _mm256_setzero_si256();
    let eights = part.bytes.chunks_exact(8 * L::SIZE);
    let rest = Source { bytes: eights.remainder(), element: part.element };
    for eight in eights {
        let bits = _mm256_and_si256(_mm256_castps_si256(L::eight(eight)), magnitude);
        largest = _mm256_max_epu32(largest, bits);
    }
    let mut lanes = [0u32; 8];
    // SAFETY: an unaligned store into 32 bytes.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), largest) };
    let rest = (0..rest.elements()).map(|index| rest.get(index).abs().to_bits());
    lanes.into_iter().chain(rest).max().unwrap_or(0)
}

/// The thresholds as a binary tree of four levels, one permutation a level.
struct Tables {
    first: __m256,
    second: __m256,
    third: __m256,
    fourth: __m256,
}

impl Tables {
    #[target_feature(enable = "avx2")]
    fn new() -> Self {
        let t = THRESHOLDS;
        Self {
            first: _mm256_set1_ps(t[7]),
            second: _mm256_setr_ps(t[3], t[11], 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
            third: _mm256_setr_ps(t[1], t[5], t[9], t[13], 0.0, 0.0, 0.0, 0.0),
            fourth: _mm256_setr_ps(t[0], t[2], t[4], t[6], t[8], t[10], t[12], t[14]),
        }
    }

    /// The number of thresholds that each value exceeds, found bit by bit; 0 for what is not a number.
    #[target_feature(enable = "avx2")]
    fn codes(&self, x: __m256) -> __m256i {
        // A comparison gives -1 where it holds: doubling and subtracting it appends a bit.
        let exceeds = |threshold| _mm256_castps_si256(_mm256_cmp_ps::<_CMP_GT_OQ>(x, threshold));
        let append = |path, threshold| _mm256_sub_epi32(_mm256_add_epi32(path, path), exceeds(threshold));
        let path = append(_mm256_setzero_si256(), self.first);
        let path = append(path, _mm256_permutevar8x32_ps(self.second, path));
        let path = append(path, _mm256_permutevar8x32_ps(self.third, path));
        append(path, _mm256_permutevar8x32_ps(self.fourth, path))
    }
}

/// 64 codes in 32-bit lanes to 32 bytes, the first of each pair in the high half.
#[target_feature(enable = "avx2")]
fn pack(codes: [__m256i; 8]) -> __m256i {
    let [a, b, c, d, e, f, g, h] = codes;
    // Packing works within halves of a register: afterwards the groups of four lie in the order 0 2 4 6 1 3 5 7.
    let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    let bytes = |a, b, c, d| {
        let packed = _mm256_packus_epi16(_mm256_packus_epi32(a, b), _mm256_packus_epi32(c, d));
        _mm256_permutevar8x32_epi32(packed, order)
    };
    // First code times 16 plus second code, for each pair.
    let pairs = |bytes| _mm256_maddubs_epi16(bytes, _mm256_set1_epi16(0x0110));
    let packed = _mm256_packus_epi16(pairs(bytes(a, b, c, d)), pairs(bytes(e, f, g, h)));
    _mm256_permute4x64_epi64::<0b11_01_10_00>(packed)
}

#[target_feature(enable = "avx2,f16c")]
fn restore_halves<R: Round, S: Fn(usize) -> f32>(blocks: &Blocks<'_, S>, out: &mut [u16]) {
    let (below, above) = halves_of(blocks.values);
    // Bytes 0, 4, 8, 12 of each half are low bytes of four values, 1, 5, 9, 13 their high bytes.
    let gather = _mm256_setr_epi8(
        0, 4, 8, 12, 1, 5, 9, 13, -1, -1, -1, -1, -1, -1, -1, -1, //
        0, 4, 8, 12, 1, 5, 9, 13, -1, -1, -1, -1, -1, -1, -1, -1,
    );
    for (number, (codes, out)) in parts(blocks.codes, out, blocks.width) {
        let scale = _mm256_set1_ps((blocks.scale)(number));
        let (below, above) = (R::eight(_mm256_mul_ps(below, scale)), R::eight(_mm256_mul_ps(above, scale)));
        let (below, above) = (_mm256_shuffle_epi8(below, gather), _mm256_shuffle_epi8(above, gather));
        // 64-bit lanes 0 and 2: low bytes of four values, then their high bytes.
        let eight = |v| _mm_unpacklo_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
        let (below, above) = (eight(below), eight(above));
        let low_bytes = _mm256_broadcastsi128_si256(_mm_unpacklo_epi64(below, above));
        let high_bytes = _mm256_broadcastsi128_si256(_mm_unpackhi_epi64(below, above));
        let (out_rounds, out_rest) = out.as_chunks_mut::<ROUND>();
        let (rounds, rest) = codes.as_chunks::<{ ROUND / 2 }>();
        for (codes, out) in rounds.iter().zip(out_rounds) {
            look_up(low_bytes, high_bytes, codes, out);
        }
        if !rest.is_empty() {
            let mut table = [0u16; 16];
            // Both halves of the registers hold the same.
            let lower = _mm256_castsi256_si128(_mm256_unpacklo_epi8(low_bytes, high_bytes));
            let upper = _mm256_castsi256_si128(_mm256_unpackhi_epi8(low_bytes, high_bytes));
            // SAFETY: unaligned stores into the two halves of `table`.
            unsafe {
                _mm_storeu_si128(table.as_mut_ptr().cast(), lower);
                _mm_storeu_si128(table.as_mut_ptr().add(8).cast(), upper);
            }
            expand_scalar(&table, rest, out_rest);
        }
    }
}

/// The two halves of sixteen values.
#[target_feature(enable = "avx2")]
fn halves_of(values: &[f32; 16]) -> (__m256, __m256) {
    let (below, above) = (&values[..8], &values[8..]);
    // SAFETY: unaligned loads of 32 bytes each.
    unsafe { (_mm256_loadu_ps(below.as_ptr()), _mm256_loadu_ps(above.as_ptr())) }
}

/// 64 values of 16 bits by their codes, low and high bytes looked up apart.
#[target_feature(enable = "avx2")]
#[inline]
fn look_up(low_bytes: __m256i, high_bytes: __m256i, codes: &[u8; ROUND / 2], out: &mut [u16; ROUND]) {
    let nibble = _mm256_set1_epi8(15);
    // SAFETY: an unaligned load of the 32 bytes of `codes`.
    let codes = unsafe { _mm256_loadu_si256(codes.as_ptr().cast()) };
    let first = _mm256_and_si256(_mm256_srli_epi16::<4>(codes), nibble);
    let second = _mm256_and_si256(codes, nibble);
    // Within each half of a register: elements 0 to 15 of it, then 16 to 31.
    let expand = |places| {
        let low = _mm256_shuffle_epi8(low_bytes, places);
        let high = _mm256_shuffle_epi8(high_bytes, places);
        (_mm256_unpacklo_epi8(low, high), _mm256_unpackhi_epi8(low, high))
    };
    let (a, b) = expand(_mm256_unpacklo_epi8(first, second));
    let (c, d) = expand(_mm256_unpackhi_epi8(first, second));
    let ordered = [
        _mm256_permute2x128_si256::<0x20>(a, b),
        _mm256_permute2x128_si256::<0x20>(c, d),
        _mm256_permute2x128_si256::<0x31>(a, b),
        _mm256_permute2x128_si256::<0x31>(c, d),
    ];
    for (part, values) in out.as_chunks_mut::<16>().0.iter_mut().zip(ordered) {
        // SAFETY: an unaligned store into the 32 bytes of `part`.
        unsafe { _mm256_storeu_si256(part.as_mut_ptr().cast(), values) };
    }
}

#[target_feature(enable = "avx2")]
fn restore_words<S: Fn(usize) -> f32>(blocks: &Blocks<'_, S>, out: &mut [f32], round: impl Fn(f32) -> f32) {
    // Bit position of each code in four bytes read as one little-endian word.
    let places = _mm256_setr_epi32(4, 0, 12, 8, 20, 16, 28, 24);
    for (number, (codes, out)) in parts(blocks.codes, out, blocks.width) {
        let scale = (blocks.scale)(number);
        let table = blocks.values.map(|value| round(value * scale));
        let (below, above) = halves_of(&table);
        let (out_rounds, out_rest) = out.as_chunks_mut::<8>();
        let (rounds, rest) = codes.as_chunks::<4>();
        for (codes, out) in rounds.iter().zip(out_rounds) {
            let word = _mm256_set1_epi32(i32::from_le_bytes(*codes));
            let code = _mm256_and_si256(_mm256_srlv_epi32(word, places), _mm256_set1_epi32(15));
            let from_below = _mm256_permutevar8x32_ps(below, code);
            let from_above = _mm256_permutevar8x32_ps(above, code);
            let is_above = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(code));
            // SAFETY: an unaligned store into the 32 bytes of `out`.
            unsafe { _mm256_storeu_ps(out.as_mut_ptr(), _mm256_blendv_ps(from_below, from_above, is_above)) };
        }
        expand_scalar(&table, rest, out_rest);
    }
}
