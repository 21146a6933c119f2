// SwiGLU's middle (Shazeer 2020, arXiv 2002.05202): out = silu(gate) * up, where silu(x) = x / (1 + e^-x); f32, rounded
// once.
//
// both [rows, 2 F]: gate in the first F columns, up in the others; out [rows, F]; both 16-byte aligned. Threads walk
// over eights, or over single elements where F is no multiple of eight. For 16-bit elements exponential and quotient
// are the processor's approximations, whose error of some 2^-21 is far below the rounding that follows.

__device__ __forceinline__ float activated(float gate, float up) {
#if defined(ELEMENT_F32)
    return gate / (1.0f + expf(-gate)) * up;
#else
    return __fdividef(gate, 1.0f + __expf(-gate)) * up;
#endif
}

extern "C" __global__ void __launch_bounds__(THREADS)
silu_multiply(const element* __restrict__ both, u64 rows, u32 width, element* __restrict__ out) {
    const u32 eights = eights_of(width);
    const u64 first = (u64)blockIdx.x * THREADS + threadIdx.x, step = (u64)gridDim.x * THREADS;
    if (eights > 0) {
        for (u64 i = first; i < rows * eights; i += step) {
            const u64 row = i / eights, column = 8 * (i - row * eights);
            float gate[8], up[8];
            load_eight(both + 2 * row * width + column, gate);
            load_eight(both + (2 * row + 1) * width + column, up);
#pragma unroll
            for (int j = 0; j < 8; ++j) gate[j] = activated(gate[j], up[j]);
            store_eight(out + row * width + column, gate);
        }
    } else {
        for (u64 i = first; i < rows * width; i += step) {
            const u64 row = i / width, column = i - row * width;
            const element* gate = both + 2 * row * width + column;
            out[i] = narrow(activated(widen(gate[0]), widen(gate[width])));
        }
    }
}
