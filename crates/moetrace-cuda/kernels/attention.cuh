// What both kernels for tensor cores begin with.

#define KEY_TILES (KEYS / 8)
#define WIDTH_TILES (WIDTH / 8)
#define THREADS (32 * WARPS)
#define ALL 0xFFFFFFFFu

__device__ __forceinline__ float power_of_two(float exponent) {
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(exponent));
    return power;
}

// Of 16 rows a lane holds two, lane / 4 and lane / 4 + 8, and of every eight columns 2 * (lane % 4) and the next.
struct Rows {
    float reference[2];
    float total[2];
};

__device__ __forceinline__ void hide_future(float (*scores)[4], u32 first_row, u32 first_key) {
    const u32 row = first_row + threadIdx.x % 32 / 4, key = first_key + threadIdx.x % 4 * 2;
#pragma unroll
    for (int n = 0; n < KEY_TILES; ++n) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            if (key + 8 * n + j % 2 > row + j / 2 * 8) scores[n][j] = -__uint_as_float(0x7F800000);
        }
    }
}

// Raises the references if need be: by how much earlier sums shrink. References stay while no score is 2^8 times above
// them in weight, since what they are changes no quotient, and sums that stay need no product.
__device__ __forceinline__ void raise_references(const float (*scores)[4], Rows& rows, float scale, float* shrink) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        float most = fmaxf(scores[0][2 * half], scores[0][2 * half + 1]);
        float other = fmaxf(scores[1][2 * half], scores[1][2 * half + 1]);
#pragma unroll
        for (int n = 2; n < KEY_TILES; n += 2) {
            most = fmaxf(most, fmaxf(scores[n][2 * half], scores[n][2 * half + 1]));
            other = fmaxf(other, fmaxf(scores[n + 1][2 * half], scores[n + 1][2 * half + 1]));
        }
        most = fmaxf(most, other);
        most = fmaxf(most, __shfl_xor_sync(ALL, most, 1));
        most = fmaxf(most, __shfl_xor_sync(ALL, most, 2));
        const float above = (most - rows.reference[half]) * scale;
        shrink[half] = above > 8.0f ? power_of_two(-above) : 1.0f;
        rows.reference[half] = above > 8.0f ? most : rows.reference[half];
        rows.total[half] *= shrink[half];
    }
}

// Scores to weights, summed and rounded.
__device__ __forceinline__ void weigh(const float (*scores)[4], Rows& rows, float scale, u32 (*weights)[2]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const float base = -rows.reference[half] * scale;
        float low_sum = 0.0f, high_sum = 0.0f;
#pragma unroll
        for (int n = 0; n < KEY_TILES; ++n) {
            const float low = power_of_two(__fmaf_rn(scores[n][2 * half], scale, base));
            const float high = power_of_two(__fmaf_rn(scores[n][2 * half + 1], scale, base));
            low_sum += low;
            high_sum += high;
            weights[n][half] = narrow_pair(low, high);
        }
        rows.total[half] += low_sum + high_sum;
    }
}

__device__ __forceinline__ bool some_shrink(const float* shrink) {
    return __any_sync(ALL, shrink[0] != 1.0f || shrink[1] != 1.0f);
}

__device__ __forceinline__ void shrink_sums(float (*sums)[4], const float* shrink) {
#pragma unroll
    for (int n = 0; n < WIDTH_TILES; ++n) {
#pragma unroll
        for (int j = 0; j < 4; ++j) sums[n][j] *= shrink[j / 2];
    }
}

__device__ __forceinline__ float row_reciprocal(float total) {
    total += __shfl_xor_sync(ALL, total, 1);
    total += __shfl_xor_sync(ALL, total, 2);
    return 1.0f / total;
}
