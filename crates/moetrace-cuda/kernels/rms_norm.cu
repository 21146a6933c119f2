// RMSNorm (Zhang and Sennrich 2019, arXiv 1910.07467), with the residual sum before it where RESIDUAL is 1:
// x = x + y, rounded; out = (x / sqrt(mean of x^2 + eps), rounded) * weight, rounded.
//
// x [N, D], read and with RESIDUAL written; y [N, D]; weight [D]; out [N, D]; all 16-byte aligned. One block a row. Rows
// may be heads: `heads` of them side by side, and `stride` elements from one row of heads to the next; out may be x.
// Squares are summed in f32: each thread its own, then over a warp and over the warps in a fixed order, which depends
// on D alone.

__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(0xFFFFFFFF, value, distance);
    return value;
}

// The same on every thread.
__device__ __forceinline__ float block_sum(float value) {
    __shared__ float sums[THREADS / 32];
    value = warp_sum(value);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = value;
    __syncthreads();
    float sum = 0.0f;
#pragma unroll
    for (int warp = 0; warp < THREADS / 32; ++warp) sum += sums[warp];
    return sum;
}

extern "C" __global__ void __launch_bounds__(THREADS)
rms_norm(element* x, const element* __restrict__ y, const element* __restrict__ weight, float eps, u32 width, u32 heads,
         u32 stride, element* out) {
    const u64 start = (u64)(blockIdx.x / heads) * stride + (u64)(blockIdx.x % heads) * width;
    element* row = x + start;
    const u32 eights = stride % 8 == 0 ? eights_of(width) : 0;
    float squares = 0.0f;
    for (u32 i = threadIdx.x; i < eights; i += THREADS) {
        float values[8];
        load_eight(row + 8 * i, values);
#if RESIDUAL
        float added[8];
        load_eight(y + start + 8 * i, added);
#pragma unroll
        for (int j = 0; j < 8; ++j) values[j] = rounded(values[j] + added[j]);
        store_eight(row + 8 * i, values);
#endif
#pragma unroll
        for (int j = 0; j < 8; ++j) squares += values[j] * values[j];
    }
    for (u32 i = 8 * eights + threadIdx.x; i < width; i += THREADS) {
        float value = widen(row[i]);
#if RESIDUAL
        value = rounded(value + widen(y[start + i]));
        row[i] = narrow(value);
#endif
        squares += value * value;
    }
    // Each thread reads again below what it has itself read or written above.
    const float rms = sqrtf(block_sum(squares) / (float)width + eps);
    for (u32 i = threadIdx.x; i < eights; i += THREADS) {
        float values[8], weights[8];
        load_eight(row + 8 * i, values);
        load_eight(weight + 8 * i, weights);
#pragma unroll
        for (int j = 0; j < 8; ++j) values[j] = rounded(values[j] / rms) * weights[j];
        store_eight(out + start + 8 * i, values);
    }
    for (u32 i = 8 * eights + threadIdx.x; i < width; i += THREADS) {
        out[start + i] = narrow(rounded(widen(row[i]) / rms) * widen(weight[i]));
    }
}
