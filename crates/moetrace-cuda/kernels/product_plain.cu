// y = x W^T + bias for any shape: the way of f32, and of widths that the library's kernels do not take. Products and
// sums are f32, in ascending order of the inner dimension for every element, so that a row's bits do not depend on the
// rows beside it; rounded once.
//
// x [M, K], w [N, K], bias [N] or null, out [M, N]; f32 where OUT_F32 is 1, elements otherwise. A block computes a
// tile of TILE x TILE with 256 threads, each 4 x 4 of them. The grid's x walks over rows, its y over outputs.

#if OUT_F32
typedef float result;
__device__ __forceinline__ result finished(float value) { return value; }
#else
typedef element result;
__device__ __forceinline__ result finished(float value) { return narrow(value); }
#endif

#define DEPTH 16
#define PER_THREAD 4

// TILE rows of a matrix, DEPTH columns from `column` on, as f32, zeros outside; stored by column.
__device__ __forceinline__ void load_tile(float (*tile)[TILE + 4], const element* matrix, u32 rows, u32 width,
                                          u32 first, u32 column) {
    for (u32 i = threadIdx.x; i < TILE * DEPTH; i += THREADS) {
        const u32 row = i / DEPTH, k = i % DEPTH;
        const bool inside = first + row < rows && column + k < width;
        tile[k][row] = inside ? widen(matrix[(u64)(first + row) * width + column + k]) : 0.0f;
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
product_plain(const element* __restrict__ x, const element* __restrict__ w, const element* __restrict__ bias, u32 rows,
              u32 outputs, u32 inputs, result* __restrict__ out) {
    __shared__ float x_tile[DEPTH][TILE + 4], w_tile[DEPTH][TILE + 4];
    const u32 first_row = blockIdx.x * TILE, first_output = blockIdx.y * TILE;
    const u32 r = threadIdx.x / (TILE / PER_THREAD) * PER_THREAD, c = threadIdx.x % (TILE / PER_THREAD) * PER_THREAD;
    float sums[PER_THREAD][PER_THREAD] = {};
    for (u32 column = 0; column < inputs; column += DEPTH) {
        load_tile(x_tile, x, rows, inputs, first_row, column);
        load_tile(w_tile, w, outputs, inputs, first_output, column);
        __syncthreads();
#pragma unroll
        for (u32 k = 0; k < DEPTH; ++k) {
#pragma unroll
            for (u32 i = 0; i < PER_THREAD; ++i) {
#pragma unroll
                for (u32 j = 0; j < PER_THREAD; ++j) {
                    sums[i][j] = fmaf(x_tile[k][r + i], w_tile[k][c + j], sums[i][j]);
                }
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (u32 i = 0; i < PER_THREAD; ++i) {
#pragma unroll
        for (u32 j = 0; j < PER_THREAD; ++j) {
            const u32 row = first_row + r + i, output = first_output + c + j;
            if (row < rows && output < outputs) {
                const float added = bias == nullptr ? 0.0f : widen(bias[output]);
                out[(u64)row * outputs + output] = finished(sums[i][j] + added);
            }
        }
    }
}
