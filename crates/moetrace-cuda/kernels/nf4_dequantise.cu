// NF4 codes and block scales to elements, bit-equal to moetrace-nf4: a scale is map[q] * nested, rounded, then
// + offset, rounded; an element is value * scale in f32, rounded once. Nothing is fused.
//
// A thread takes eight elements at a time: four bytes of codes in, one store of sixteen bytes out (two for f32),
// both coalesced over a warp. Wider loads would leave a warp's stores 64 bytes apart. Eight elements never straddle
// a block, whose size is a power of two from 32 on. Blocks walk over tiles with a stride, so that the tables are
// copied into shared memory once a block and not once a tile; the sixteen values lie in sixteen banks, so no look-up
// conflicts. All loads of a tile are issued before the first of its stores.
//
// With DOUBLE: scales u8 [blocks], nested f32 [ceil(blocks / 2^nested_shift)]. Without: scales f32 [blocks].
// codes u8 [elements / 2], 4-byte aligned, high half first; tables f32 [16 + 256]: values of codes, then of scales;
// out [elements], 16-byte aligned. `elements` is even.

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
               const float* __restrict__ nested, const float* __restrict__ tables, float offset, u32 block_shift,
               u32 nested_shift, u64 elements, element* __restrict__ out) {
    __shared__ float shared_tables[CODES + MAP];
    for (u32 i = threadIdx.x; i < (DOUBLE ? CODES + MAP : CODES); i += THREADS) shared_tables[i] = tables[i];
    __syncthreads();
    const float* values = shared_tables;
    const float* map = shared_tables + CODES;

    const u32 whole = (u32)(elements / 8);
    const u32* words = reinterpret_cast<const u32*>(codes);
    for (u32 tile = blockIdx.x * (THREADS * CHUNKS); tile < whole; tile += gridDim.x * (THREADS * CHUNKS)) {
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
