// From router logits to a choice: softmax, the K largest scores with ties to the lower id, their weights, the margin to
// the next score, and the entropy of the distribution in bits. One warp a token; lane l holds the experts l, l + 32, ...
//
// logits f32 [N, E], the unrounded product. With round_logits they are rounded to `element` first; with round_scores
// the scores e^(x - max) / sum are, and so are the sum of K weights and that sum plus sum_offset (renormalise); the
// weights are rounded if the logits are. The entropy is that of the rounded logits, with sums in f64:
// (ln Z - sum of e^(x - max) * (x - max) / Z) / ln 2.
//
// experts u16 [N, K] by falling score; weights f32 [N, K]; margins f32 [N]: score of rank K less that of rank K + 1,
// or the score itself where all are chosen; entropies f32 [N]; rounded_logits f32 [N, E] or null; first_bad u32 [1]:
// becomes the least row with a logit that is not finite, if that is less than what stands there.
// E is at most 32 * LANE_VALUES, K at most 32 and at most E.

#define ALL 0xFFFFFFFFu

__device__ __forceinline__ double warp_sum(double value) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(ALL, value, distance);
    return value;
}

// The largest key of the warp, on every lane.
__device__ __forceinline__ u64 warp_max(u64 key) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
        const u64 other = __shfl_xor_sync(ALL, key, distance);
        key = other > key ? other : key;
    }
    return key;
}

// Larger scores have larger keys, and of equal scores the lower id; no key is 0. Scores are not negative, so they
// order as their bits do.
__device__ __forceinline__ u64 key_of(float score, u32 id) { return ((u64)__float_as_uint(score) << 32) | (ALL - id); }

// Takes the largest key away from the lane that holds it.
__device__ __forceinline__ u64 take_largest(u64* keys) {
    u64 best = 0;
#pragma unroll
    for (int j = 0; j < LANE_VALUES; ++j) best = keys[j] > best ? keys[j] : best;
    best = warp_max(best);
#pragma unroll
    for (int j = 0; j < LANE_VALUES; ++j) keys[j] = keys[j] == best ? 0 : keys[j];
    return best;
}

__device__ __forceinline__ float rounded_if(bool asked, float value) { return asked ? rounded(value) : value; }

extern "C" __global__ void __launch_bounds__(THREADS)
router(const float* __restrict__ logits, u32 tokens, u32 count, u32 chosen, u32 round_logits, u32 round_scores,
       u32 renormalise, float sum_offset, u16* __restrict__ experts, float* __restrict__ weights,
       float* __restrict__ margins, float* __restrict__ entropies, float* __restrict__ rounded_logits, u32* first_bad) {
    const u32 token = blockIdx.x * (THREADS / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (token >= tokens) return;
    const u64 start = (u64)token * count;

    float values[LANE_VALUES];
    float largest = -__uint_as_float(0x7F800000);
    bool bad = false;
#pragma unroll
    for (int j = 0; j < LANE_VALUES; ++j) {
        const u32 id = 32 * j + lane;
        values[j] = 0.0f;
        if (id < count) {
            const float logit = logits[start + id];
            bad |= (__float_as_uint(logit) & 0x7F800000) == 0x7F800000;
            values[j] = rounded_if(round_logits, logit);
            if (rounded_logits != nullptr) rounded_logits[start + id] = values[j];
            largest = fmaxf(largest, values[j]);
        }
    }
    if (__any_sync(ALL, bad) && lane == 0) atomicMin(first_bad, token);
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
        largest = fmaxf(largest, __shfl_xor_sync(ALL, largest, distance));
    }

    float sum = 0.0f;
    double weighted = 0.0, wide_sum = 0.0;
#pragma unroll
    for (int j = 0; j < LANE_VALUES; ++j) {
        if (32 * j + lane < count) {
            const float shifted = values[j] - largest;
            values[j] = expf(shifted);
            sum += values[j];
            wide_sum += (double)values[j];
            weighted += (double)values[j] * (double)shifted;
        }
    }
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(ALL, sum, distance);
    wide_sum = warp_sum(wide_sum);
    weighted = warp_sum(weighted);
    if (lane == 0) {
        const double nats = log(wide_sum) - weighted / wide_sum;
        entropies[token] = (float)fmax(nats * 1.4426950408889634, 0.0);
    }

    u64 keys[LANE_VALUES];
#pragma unroll
    for (int j = 0; j < LANE_VALUES; ++j) {
        const u32 id = 32 * j + lane;
        keys[j] = id < count ? key_of(rounded_if(round_scores, values[j] / sum), id) : 0;
    }
    // Lane k keeps the score of rank k. All lanes sum the scores in rank order.
    float mine = 0.0f, last = 0.0f, total = 0.0f;
    for (u32 k = 0; k < chosen; ++k) {
        const u64 best = take_largest(keys);
        last = __uint_as_float((u32)(best >> 32));
        total += last;
        if (lane == k) {
            mine = last;
            experts[(u64)token * chosen + k] = (u16)(ALL - (u32)best);
        }
    }
    const float next = chosen < count ? __uint_as_float((u32)(take_largest(keys) >> 32)) : 0.0f;
    if (lane == 0) margins[token] = last - next;
    if (renormalise) {
        total = rounded_if(round_scores, total);
        total = rounded_if(round_scores, total + sum_offset);
        mine = mine / total;
    }
    if (lane < chosen) weights[(u64)token * chosen + lane] = rounded_if(round_logits, mine);
}
