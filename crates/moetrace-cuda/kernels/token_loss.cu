// Losses in nats: ln of the sum of e^logit less the target's logit, sums over a thread's logits in f32 and over
// threads in f64.
//
// logits f32 [n, V], targets u32 [n] (a target outside the vocabulary, as where a text ends, gives NaN), losses f32
// [n]. One block a row.

extern "C" __global__ void __launch_bounds__(THREADS)
token_loss(const float* __restrict__ logits, const u32* __restrict__ targets, u32 vocabulary,
           float* __restrict__ losses) {
    __shared__ float largest_of[THREADS / 32];
    __shared__ double sum_of[THREADS / 32];
    const float* row = logits + (u64)blockIdx.x * vocabulary;
    const u32 target = targets[blockIdx.x], lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    if (target >= vocabulary) {
        if (threadIdx.x == 0) losses[blockIdx.x] = not_a_number();
        return;
    }
    float largest = -__uint_as_float(0x7F800000);
    for (u32 i = threadIdx.x; i < vocabulary; i += THREADS) largest = fmaxf(largest, row[i]);
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
        largest = fmaxf(largest, __shfl_xor_sync(0xFFFFFFFF, largest, distance));
    }
    if (lane == 0) largest_of[warp] = largest;
    __syncthreads();
    for (u32 i = 0; i < THREADS / 32; ++i) largest = fmaxf(largest, largest_of[i]);
    float part = 0.0f;
    for (u32 i = threadIdx.x; i < vocabulary; i += THREADS) part += expf(row[i] - largest);
    double sum = (double)part;
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(0xFFFFFFFF, sum, distance);
    if (lane == 0) sum_of[warp] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        double all = 0.0;
        for (u32 i = 0; i < THREADS / 32; ++i) all += sum_of[i];
        losses[blockIdx.x] = (float)(log(all) + (double)largest - (double)row[target]);
    }
}
