// Causal attention inside each span of a packed batch, for every element and any even width up to MOST_WIDTH: the
// definition as the CPU engine rounds it. `attention.cu` says how arguments lie; here nothing need be aligned.
//
// Scores are f32 sums of products times `scale`, 1 / sqrt(width); with their largest m and the sum of e^(score - m),
// a weight is e^(score - m) / sum, rounded; the f32 sum of weights times values is rounded once. Scores are computed
// twice: for m and the sum, and for the weights.
//
// Block (t, h, s) makes rows s * WARPS, s * WARPS + 1, ... of tile t of head h, each warp one. A warp's lane takes
// one of KEYS keys for a score, and every 32nd column for the result.

#define ALL 0xFFFFFFFFu
#define KEYS 32
#define THREADS (32 * WARPS)
// An odd number of words from key to key, so that 32 keys lie in 32 banks.
#define PITCH (MOST_WIDTH + 1)

__device__ __forceinline__ float infinity() { return __uint_as_float(0x7F800000); }

extern "C" __global__ void __launch_bounds__(THREADS)
attention_plain(const element* __restrict__ q, const element* __restrict__ k, const element* __restrict__ v, u32 stride,
                u32 group, const u32* __restrict__ tiles, u32 width, float scale, element* __restrict__ out) {
    __shared__ float queries[WARPS][MOST_WIDTH];
    __shared__ float keys[KEYS * PITCH];

    const u32 start = tiles[3 * blockIdx.x], length = tiles[3 * blockIdx.x + 1];
    const u32 first = tiles[3 * blockIdx.x + 2] + blockIdx.z * WARPS;
    if (first >= length) return;
    const u32 head = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const u32 row = first + warp, end = length < first + WARPS ? length : first + WARPS;
    q += (u64)start * stride + head * width;
    k += (u64)start * stride + head / group * width;
    v += (u64)start * stride + head / group * width;
    for (u32 i = lane; i < width; i += 32) queries[warp][i] = row < length ? widen(q[(u64)row * stride + i]) : 0.0f;

    // Of the scores that this lane has seen, then of all.
    float largest = -infinity(), total = 0.0f;
    float sums[MOST_WIDTH / 32] = {};
    for (u32 pass = 0; pass < 2; ++pass) {
        for (u32 first_key = 0; first_key < end; first_key += KEYS) {
            __syncthreads();
            for (u32 key = warp; key < KEYS; key += WARPS) {
                const element* from = k + (u64)(first_key + key) * stride;
                const bool inside = first_key + key < end;
                for (u32 i = lane; i < width; i += 32) keys[key * PITCH + i] = inside ? widen(from[i]) : 0.0f;
            }
            __syncthreads();
            float score = 0.0f;
            for (u32 i = 0; i < width; ++i) score = __fmaf_rn(queries[warp][i], keys[lane * PITCH + i], score);
            score *= scale;
            const bool seen = first_key + lane <= row;
            if (pass == 0) {
                if (seen) {
                    const float most = fmaxf(largest, score);
                    total = total * expf(largest - most) + expf(score - most);
                    largest = most;
                }
                continue;
            }
            const float weight = seen ? rounded(expf(score - largest) / total) : 0.0f;
            const u32 visible = row < length && row + 1 > first_key ? row + 1 - first_key : 0;
            for (u32 key = 0; key < (visible < KEYS ? visible : KEYS); ++key) {
                const float one = __shfl_sync(ALL, weight, key);
                const element* values = v + (u64)(first_key + key) * stride;
#pragma unroll
                for (int j = 0; j < MOST_WIDTH / 32; ++j) {
                    const u32 column = 32 * j + lane;
                    if (column < width) sums[j] = __fmaf_rn(one, widen(values[column]), sums[j]);
                }
            }
        }
        if (pass == 0) {
#pragma unroll
            for (int distance = 16; distance > 0; distance /= 2) {
                const float other = __shfl_xor_sync(ALL, largest, distance);
                const float other_total = __shfl_xor_sync(ALL, total, distance);
                const float most = fmaxf(largest, other);
                // A lane that saw no key has nothing to add.
                const float mine = largest == -infinity() ? 0.0f : total * expf(largest - most);
                const float theirs = other == -infinity() ? 0.0f : other_total * expf(other - most);
                total = mine + theirs;
                largest = most;
            }
        }
    }
    if (row >= length) return;
#pragma unroll
    for (int j = 0; j < MOST_WIDTH / 32; ++j) {
        const u32 column = 32 * j + lane;
        if (column < width) out[((u64)(start + row) * gridDim.y + head) * width + column] = narrow(sums[j]);
    }
}
