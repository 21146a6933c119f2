// Rotary position embedding in the rotate-half form (Su et al. 2021, arXiv 2104.09864), in place: with a = x[i] and
// b = x[i + width / 2], x[i] = a * cos - b * sin and x[i + width / 2] = a * sin + b * cos. Products and sums are f32,
// each result is rounded once.
//
// x [N, heads, width], rows `stride` elements apart, so that queries and keys may lie in one product's rows; cosines
// and sines [positions, width / 2], as rounded on the host; positions u32 [N]. A position outside the tables gives
// NaN. One block a row.

extern "C" __global__ void __launch_bounds__(THREADS)
rotary(element* x, const u32* __restrict__ positions, const element* __restrict__ cosines,
       const element* __restrict__ sines, u32 heads, u32 half, u32 stride, u32 table_rows) {
    element* row = x + (u64)blockIdx.x * stride;
    const u32 position = positions[blockIdx.x];
    const bool inside = position < table_rows;
    const u64 angles = (u64)(inside ? position : 0) * half;
    for (u32 pair = threadIdx.x; pair < heads * half; pair += THREADS) {
        const u32 i = pair % half;
        element* low = row + (u64)(pair / half) * 2 * half + i;
        const float cosine = inside ? widen(cosines[angles + i]) : not_a_number();
        const float sine = inside ? widen(sines[angles + i]) : not_a_number();
        const float a = widen(low[0]), b = widen(low[half]);
        low[0] = narrow(a * cosine - b * sine);
        low[half] = narrow(a * sine + b * cosine);
    }
}
