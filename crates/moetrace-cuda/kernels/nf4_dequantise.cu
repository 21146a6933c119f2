// NF4 codes and block scales of a stack of equally long tensors to elements, bit-equal to moetrace-nf4: a scale is
// map[q] * nested, rounded, then + offset, rounded; an element is value * scale in f32, rounded once. Nothing is fused.
//
// A block restores one tile of one tensor: gridDim.y is the number of tensors, gridDim.x that of a tensor's tiles. A
// thread takes eight elements at a time: four bytes of codes in, one store of sixteen bytes out (two for f32), both
// coalesced over a warp. Wider loads would leave a warp's stores 64 bytes apart. Eight elements never straddle a block
// of scales, whose size is a power of two from 32 on. The sixteen values lie in sixteen banks, so no look-up conflicts.
// All loads of a tile are issued before the first of its stores.
//
// Small tiles in the order of the grid are fastest, presumably since what is written at any moment lies close together.
// On an H200, 192 tensors of 1408 x 2048, bf16, beside a copy at 4,100 to 4,120 GB/s: 4,001 GB/s with two eights a
// thread, 3,972 with four, 3,901 with eight, 3,325 with one. Blocks that stay for 4 and 8 tiles: 3,731 and 3,679. The
// loads and stores of four eights without the arithmetic: 3,929. Tiles gathered in shared memory and written by
// cp.async.bulk: 3,906 to 4,009, so the plain store is kept. Streaming stores gain 0.4 %, but may push small results
// out of the L2 cache before the product that reads them. Filling memory alone reaches 4,600.
//
// With DOUBLE: scales u8 [tensors, blocks], nested f32 [tensors, nested_blocks], offsets f32 [tensors]. Without:
// scales f32 [tensors, blocks]. codes u8 [tensors, elements / 2], 4-byte aligned, high half first; tables
// f32 [16 + 256]: values of codes, then of scales; out [tensors, elements], 16-byte aligned. `elements` is even, and
// a multiple of eight where there are several tensors.

#if DOUBLE
typedef u8 scale_code;
#else
typedef float scale_code;
#endif

__device__ __forceinline__ u32 load_once(const u32* from) {
    u32 value;
    asm("ld.global.nc.L1::no_allocate.u32 %0, [%1];" : "=r"(value) : "l"(from));
    return value;
}

__device__ __forceinline__ float restored_scale(scale_code scale, float nested, float offset, const float* map) {
#if DOUBLE
    return __fadd_rn(__fmul_rn(map[scale], nested), offset);
#else
    return scale;
#endif
}

// The eight elements of a word of codes.
__device__ __forceinline__ void restore_eight(element* out, u32 word, float scale, const float* values) {
    float restored[8];
#pragma unroll
    for (int byte = 0; byte < 4; ++byte) {
        restored[2 * byte] = __fmul_rn(values[(word >> (8 * byte + 4)) & 15], scale);
        restored[2 * byte + 1] = __fmul_rn(values[(word >> (8 * byte)) & 15], scale);
    }
    store_eight(out, restored);
}

extern "C" __global__ void __launch_bounds__(THREADS)
nf4_dequantise(const u8* __restrict__ codes, const scale_code* __restrict__ scales,
               const float* __restrict__ nested, const float* __restrict__ offsets, const float* __restrict__ tables,
               u32 block_shift, u32 nested_shift, u64 blocks, u64 nested_blocks, u64 elements,
               element* __restrict__ out) {
    __shared__ float shared_tables[CODES + MAP];
    for (u32 i = threadIdx.x; i < (DOUBLE ? CODES + MAP : CODES); i += THREADS) shared_tables[i] = tables[i];
    const float* values = shared_tables;
    const float* map = shared_tables + CODES;

    const u64 tensor = blockIdx.y;
    codes += tensor * (elements / 2);
    scales += tensor * blocks;
    out += tensor * elements;
#if DOUBLE
    nested += tensor * nested_blocks;
    const float offset = offsets[tensor];
#else
    const float offset = 0.0f;
#endif
    __syncthreads();

    const u32 whole = (u32)(elements / 8);
    const u32 tile = blockIdx.x * (THREADS * CHUNKS);
    if (tile < whole) {
        const u32* words = reinterpret_cast<const u32*>(codes);
        u32 word[CHUNKS];
        scale_code scale[CHUNKS];
        float outer[CHUNKS];
#pragma unroll
        for (int j = 0; j < CHUNKS; ++j) {
            // Past the end the last chunk is read again: loads without branches, and nothing is stored.
            const u32 chunk = min(tile + j * THREADS + threadIdx.x, whole - 1);
            const u32 block = chunk >> (block_shift - 3);
            word[j] = load_once(words + chunk);
            scale[j] = scales[block];
            outer[j] = DOUBLE ? nested[block >> nested_shift] : 0.0f;
        }
#pragma unroll
        for (int j = 0; j < CHUNKS; ++j) {
            const u32 chunk = tile + j * THREADS + threadIdx.x;
            if (chunk < whole) {
                restore_eight(out + 8 * (u64)chunk, word[j], restored_scale(scale[j], outer[j], offset, map), values);
            }
        }
    }

    // Up to three bytes of codes behind the last whole chunk.
    const u64 byte = 4 * (u64)whole + threadIdx.x;
    if (blockIdx.x == 0 && byte < elements / 2) {
        const u64 block = (2 * byte) >> block_shift;
        const float factor = restored_scale(scales[block], DOUBLE ? nested[block >> nested_shift] : 0.0f, offset, map);
        out[2 * byte] = narrow(__fmul_rn(values[codes[byte] >> 4], factor));
        out[2 * byte + 1] = narrow(__fmul_rn(values[codes[byte] & 15], factor));
    }
}
