// Block scales to 8 bits around their mean, bit-equal to moetrace-nf4's DoubleQuantised: the mean of a tensor's scales is
// summed in f64 and rounded to f32; a block of 256 scales has the largest distance from the mean as its own scale; a
// scale's code is the entry of the map that a binary search for (scale - mean) * (1 / largest) ends at.
//
// moetrace-nf4 adds the scales in order. Every order gives the same bits if every partial sum is exact, and it is if
// all scales are multiples of some power of two and their sum is below 2^53 of it: then so are all partial sums.
// Scales of bf16 weights have 8 significant bits, so that is the rule; where it does not hold, one thread adds in
// order. A sum that was rounded on its way is at least 2^53 of that power, since scales are not negative: the test
// can be made with the computed sum.
//
// absmax f32 [tensors, blocks], finite and not negative; map f32 [256], ascending; codes u8 [tensors, blocks]; nested
// f32 [tensors, ceil(blocks / 256)]; offsets f32 [tensors]. One thread block a tensor, one warp a block of scales.

#define WARPS (THREADS / 32)

// The exponent of the lowest bit that is set in a finite number.
__device__ __forceinline__ int lowest_exponent(float value) {
    const u32 bits = __float_as_uint(value) & 0x7FFFFFFF;
    if (bits == 0) return 1000;
    const u32 exponent = bits >> 23;
    const u32 digits = exponent == 0 ? bits : (bits & 0x7FFFFF) | 0x800000;
    return (int)max(exponent, 1u) - 150 + __ffs((int)digits) - 1;
}

// As `dQuantize` of bitsandbytes: eight steps down a binary tree, then one midpoint.
__device__ __forceinline__ u32 nearest(const float* map, float x) {
    u32 pivot = 127, below = 0, above = 255;
#pragma unroll
    for (u32 step = 64; step > 0; step /= 2) {
        if (x > map[pivot]) {
            below = pivot;
            pivot += step;
        } else {
            above = pivot;
            pivot -= step;
        }
    }
    const float value = map[pivot];
    if (x > value) return x > __fmul_rn(__fadd_rn(map[above], value), 0.5f) ? above : pivot;
    return x < __fmul_rn(__fadd_rn(map[below], value), 0.5f) ? below : pivot;
}

__device__ __forceinline__ float mean(const float* absmax, u32 blocks) {
    __shared__ double sum_of[WARPS];
    __shared__ int lowest_of[WARPS];
    __shared__ float offset;
    double sum = 0.0;
    int lowest = 1000;
#pragma unroll 8
    for (u32 i = threadIdx.x; i < blocks; i += THREADS) {
        const float scale = absmax[i];
        sum += (double)scale;
        lowest = min(lowest, lowest_exponent(scale));
    }
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
        sum += __shfl_xor_sync(0xFFFFFFFF, sum, distance);
        lowest = min(lowest, __shfl_xor_sync(0xFFFFFFFF, lowest, distance));
    }
    if (threadIdx.x % 32 == 0) {
        sum_of[threadIdx.x / 32] = sum;
        lowest_of[threadIdx.x / 32] = lowest;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        for (u32 warp = 1; warp < WARPS; ++warp) {
            sum += sum_of[warp];
            lowest = min(lowest, lowest_of[warp]);
        }
        // 2^(lowest + 53); `lowest` is 1000 where all scales are 0, and else from -149 to 127.
        const double limit = __longlong_as_double((long long)(min(lowest, 127) + 53 + 1023) << 52);
        if (!(sum < limit)) {
            sum = 0.0;
#pragma unroll 8
            for (u32 i = 0; i < blocks; ++i) sum += (double)absmax[i];
        }
        offset = (float)(sum / (double)blocks);
    }
    __syncthreads();
    return offset;
}

extern "C" __global__ void __launch_bounds__(THREADS)
nf4_double(const float* __restrict__ absmax, const float* __restrict__ map, u32 blocks, u32 nested_blocks,
           u8* __restrict__ codes, float* __restrict__ nested, float* __restrict__ offsets) {
    const u64 tensor = blockIdx.x;
    absmax += tensor * blocks;
    codes += tensor * blocks;
    nested += tensor * nested_blocks;
    __shared__ float shared_map[MAP];
    for (u32 i = threadIdx.x; i < MAP; i += THREADS) shared_map[i] = map[i];
    const float offset = mean(absmax, blocks);
    if (threadIdx.x == 0) offsets[tensor] = offset;

    const u32 lane = threadIdx.x % 32;
    for (u32 block = threadIdx.x / 32; block < nested_blocks; block += WARPS) {
        float distances[NESTED_BLOCK / 32];
        float largest = 0.0f;
#pragma unroll
        for (int i = 0; i < NESTED_BLOCK / 32; ++i) {
            const u32 place = block * NESTED_BLOCK + i * 32 + lane;
            distances[i] = place < blocks ? __fsub_rn(absmax[place], offset) : 0.0f;
            largest = fmaxf(largest, fabsf(distances[i]));
        }
#pragma unroll
        for (int distance = 16; distance > 0; distance /= 2) {
            largest = fmaxf(largest, __shfl_xor_sync(0xFFFFFFFF, largest, distance));
        }
        const float reciprocal = 1.0f / largest;
        if (lane == 0) nested[block] = largest;
#pragma unroll
        for (int i = 0; i < NESTED_BLOCK / 32; ++i) {
            const u32 place = block * NESTED_BLOCK + i * 32 + lane;
            if (place < blocks) codes[place] = (u8)nearest(shared_map, __fmul_rn(distances[i], reciprocal));
        }
    }
}
