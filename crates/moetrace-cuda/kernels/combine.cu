// Each token's experts, weighted and summed in ascending expert id in f32, then the shared block, rounded once:
// out[n] = sum over k of weights[n][k] * results[places[n][k]], + gates[n] * shared[n]. Products and sums are not
// fused, so that the bits are those of the CPU engine, whatever order experts were computed in.
//
// results [rows, D]; places u32 [N, K], rows of `results`; experts u16 [N, K], which give the order; weights f32
// [N, K]; shared [N, D] or null; gates f32 [N] or null, which is 1; out [N, D]. Elements 16-byte aligned. A place
// outside the results gives NaN. One block a token; K is at most THREADS.

__device__ __forceinline__ void add_eight(float* sums, const element* from, float factor) {
    float values[8];
    load_eight(from, values);
#pragma unroll
    for (int j = 0; j < 8; ++j) sums[j] = sums[j] + factor * values[j];
}

extern "C" __global__ void __launch_bounds__(THREADS)
combine(const element* __restrict__ results, const u32* __restrict__ places, const u16* __restrict__ experts,
        const float* __restrict__ weights, const element* __restrict__ shared, const float* __restrict__ gates,
        u32 result_rows, u32 chosen, u32 width, element* __restrict__ out) {
    __shared__ u32 sorted_places[THREADS];
    __shared__ float sorted_weights[THREADS];
    if (threadIdx.x < chosen) {
        const u64 choice = (u64)blockIdx.x * chosen;
        const u16 expert = experts[choice + threadIdx.x];
        u32 before = 0;
        for (u32 k = 0; k < chosen; ++k) {
            const u16 other = experts[choice + k];
            before += other < expert || (other == expert && k < threadIdx.x);
        }
        const u32 place = places[choice + threadIdx.x];
        const bool inside = place < result_rows;
        sorted_places[before] = inside ? place : 0;
        sorted_weights[before] = inside ? weights[choice + threadIdx.x] : not_a_number();
    }
    __syncthreads();
    const u64 start = (u64)blockIdx.x * width;
    const float gate = gates == nullptr ? 1.0f : gates[blockIdx.x];
    const u32 eights = eights_of(width);
    for (u32 i = threadIdx.x; i < eights; i += THREADS) {
        float sums[8] = {};
        for (u32 k = 0; k < chosen; ++k) {
            add_eight(sums, results + (u64)sorted_places[k] * width + 8 * i, sorted_weights[k]);
        }
        if (shared != nullptr) add_eight(sums, shared + start + 8 * i, gate);
        store_eight(out + start + 8 * i, sums);
    }
    for (u32 i = 8 * eights + threadIdx.x; i < width; i += THREADS) {
        float sum = 0.0f;
        for (u32 k = 0; k < chosen; ++k) {
            sum = sum + sorted_weights[k] * widen(results[(u64)sorted_places[k] * width + i]);
        }
        if (shared != nullptr) sum = sum + gate * widen(shared[start + i]);
        out[start + i] = narrow(sum);
    }
}
