// The gate of a shared expert: sigmoid(x . w), the product rounded before the sigmoid and the sigmoid after it, as the
// reference implementation (Qwen2MoeSparseMoeBlock) does in its own type.
//
// x [N, D], w [D], both 16-byte aligned; gates f32 [N]. One warp a row; lanes sum in an order that depends on D alone.

extern "C" __global__ void __launch_bounds__(THREADS)
shared_gate(const element* __restrict__ x, const element* __restrict__ w, u32 rows, u32 width,
            float* __restrict__ gates) {
    const u32 row = blockIdx.x * (THREADS / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;
    const element* values = x + (u64)row * width;
    const u32 eights = eights_of(width);
    float sum = 0.0f;
    for (u32 i = lane; i < eights; i += 32) {
        float left[8], right[8];
        load_eight(values + 8 * i, left);
        load_eight(w + 8 * i, right);
#pragma unroll
        for (int j = 0; j < 8; ++j) sum = fmaf(left[j], right[j], sum);
    }
    for (u32 i = 8 * eights + lane; i < width; i += 32) sum = fmaf(widen(values[i]), widen(w[i]), sum);
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(0xFFFFFFFF, sum, distance);
    if (lane == 0) gates[row] = rounded(1.0f / (1.0f + expf(-rounded(sum))));
}
