// Elements to NF4 codes and block scales, bit-equal to moetrace-nf4: a scale is the largest magnitude of its block; an
// element's code is the number of thresholds that x * (1 / scale) exceeds, both rounded to f32.
//
// A thread takes eight elements at a time: one load of sixteen bytes (two for f32), one store of four bytes of codes,
// both coalesced over a warp. Blocks up to 256 elements lie within a warp, whose lanes find the largest magnitude by
// shuffles; with WIDE, blocks of 512 to 4096 elements lie within a thread block, whose warps meet in shared memory.
//
// Thresholds are more than 1/16 apart, so a value has at most one threshold near it: the value rounded to a multiple of
// 1/16 names a cell, and a cell knows one threshold and the number of those below. Rounding is monotonic, and Rust
// fills the cells with the same rounding, so that a threshold in another cell is on the side that its cell is on. Where
// 1 / scale is infinite (zeros, and scales below 2^-128), thresholds are counted one by one: products can then be
// infinite or not a number, which exceeds nothing.
//
// from [tensors, elements], 16-byte aligned, f32, f16 or bf16; cells u32 [CELLS, 2] (threshold, codes below it), then
// f32 [15], all thresholds; codes u8 [tensors, elements / 2], 4-byte aligned, high half first; absmax f32 [tensors,
// blocks]; refused u64 [tensors], all bits set before: the least index of an element that is not finite. `elements` is
// even, a multiple of 8 if there are several tensors.

#define THRESHOLDS 15

struct __align__(8) Cell {
    u32 threshold, below;
};

// To the nearest multiple of 1/16, as a count from -1 on; 1.5 * 2^23 leaves no room for a fraction.
__device__ __forceinline__ u32 cell_of(float scaled) {
    const float shifted = __fadd_rn(__fmul_rn(scaled, 16.0f), 12582912.0f + 16.0f);
    return __float_as_uint(shifted) & (CELLS - 1);
}

__device__ __forceinline__ void load_some(const element* from, u32 count, float* values) {
    if (count >= 8) {
        load_eight(from, values);
    } else {
#pragma unroll
        for (u32 i = 0; i < 8; ++i) values[i] = i < count ? widen(from[i]) : 0.0f;
    }
}

__device__ __forceinline__ void store_some(u8* to, u32 count, u32 word) {
    if (count >= 8) {
        *reinterpret_cast<u32*>(to) = word;
    } else {
#pragma unroll
        for (u32 byte = 0; byte < 3; ++byte) {
            if (2 * byte < count) to[byte] = (u8)(word >> (8 * byte));
        }
    }
}

__device__ __forceinline__ float largest_of(const float* values) {
    float largest = 0.0f;
#pragma unroll
    for (int i = 0; i < 8; ++i) largest = fmaxf(largest, fabsf(values[i]));
    return largest;
}

// The largest over groups of `lanes` lanes.
__device__ __forceinline__ float largest_in_lanes(float largest, u32 lanes) {
#pragma unroll
    for (u32 distance = 16; distance > 0; distance /= 2) {
        const float other = __shfl_xor_sync(0xFFFFFFFF, largest, distance);
        if (distance < lanes) largest = fmaxf(largest, other);
    }
    return largest;
}

__device__ __forceinline__ u32 in_place(int i, u32 code) { return code << (8 * (i / 2) + (i % 2 == 0 ? 4 : 0)); }

__device__ __forceinline__ u32 codes_of(const float* values, float reciprocal, const Cell* cells, const float* thresholds) {
    u32 word = 0;
    if (reciprocal < __uint_as_float(0x7F800000)) {
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const float scaled = __fmul_rn(values[i], reciprocal);
            const Cell cell = cells[cell_of(scaled)];
            word |= in_place(i, cell.below + (scaled > __uint_as_float(cell.threshold) ? 1 : 0));
        }
    } else {
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const float scaled = __fmul_rn(values[i], reciprocal);
            u32 code = 0;
#pragma unroll 1
            for (int t = 0; t < THRESHOLDS; ++t) code += scaled > thresholds[t] ? 1 : 0;
            word |= in_place(i, code);
        }
    }
    return word;
}

__device__ __forceinline__ void refuse(u64* refused, const float* values, u64 first) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        if (!(fabsf(values[i]) < __uint_as_float(0x7F800000))) {
            atomicMin(refused, first + i);
            return;
        }
    }
}

__device__ __forceinline__ bool all_finite(const float* values) {
    // A difference with itself is 0, or not a number; so is a sum of these.
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < 8; ++i) sum += values[i] - values[i];
    return sum == 0.0f;
}

extern "C" __global__ void __launch_bounds__(THREADS)
nf4_quantise(const element* __restrict__ from, const u32* __restrict__ tables, u32 block_shift, u64 elements, u64 blocks,
             u8* __restrict__ codes, float* __restrict__ absmax, u64* __restrict__ refused) {
    const u64 tensor = blockIdx.y;
    from += tensor * elements;
    codes += tensor * (elements / 2);
    absmax += tensor * blocks;
    refused += tensor;
    __shared__ Cell cells[CELLS];
    __shared__ float thresholds[THRESHOLDS];
    for (u32 i = threadIdx.x; i < CELLS; i += THREADS) cells[i] = Cell{tables[2 * i], tables[2 * i + 1]};
    if (threadIdx.x < THRESHOLDS) thresholds[threadIdx.x] = __uint_as_float(tables[2 * CELLS + threadIdx.x]);
    __syncthreads();

    const u32 eights = (u32)((elements + 7) / 8);
    const u32 eights_shift = block_shift - 3;  // eights of a block
#if WIDE
    __shared__ float largest_of_warp[2][THREADS / 32];
    u32 turn = 0;
#endif
    for (u32 tile = blockIdx.x * (THREADS * CHUNKS); tile < eights; tile += gridDim.x * (THREADS * CHUNKS)) {
        float values[CHUNKS][8];
#pragma unroll
        for (int j = 0; j < CHUNKS; ++j) {
            const u32 eight = tile + j * THREADS + threadIdx.x;
            const u64 first = 8 * (u64)eight;
            load_some(from + first, eight < eights ? (u32)min(elements - first, (u64)8) : 0, values[j]);
        }
#pragma unroll
        for (int j = 0; j < CHUNKS; ++j) {
            const u32 eight = tile + j * THREADS + threadIdx.x;
            const u64 first = 8 * (u64)eight;
            float largest = largest_in_lanes(largest_of(values[j]), min(1u << eights_shift, 32u));
#if WIDE
            // Two places in turn: a warp that is ahead writes the one that nobody reads any more.
            largest_of_warp[turn][threadIdx.x / 32] = largest;
            __syncthreads();
            const u32 warps = 1u << (eights_shift - 5);
            const u32 warp = threadIdx.x / 32 & ~(warps - 1);
            for (u32 i = 0; i < warps; ++i) largest = fmaxf(largest, largest_of_warp[turn][warp + i]);
            turn ^= 1;
#endif
            if (eight < eights) {
                if (!all_finite(values[j])) refuse(refused, values[j], first);
                if ((eight & ((1u << eights_shift) - 1)) == 0) absmax[eight >> eights_shift] = largest;
                const u32 word = codes_of(values[j], 1.0f / largest, cells, thresholds);
                store_some(codes + first / 2, (u32)min(elements - first, (u64)8), word);
            }
        }
    }
}
