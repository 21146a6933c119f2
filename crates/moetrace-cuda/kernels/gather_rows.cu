// Rows of a table by number: out[n] = table[ids[n]]. A number outside the table gives a row of NaN.
//
// table [rows, width], ids u32 [N], out [N, width]; table and out 16-byte aligned. One block a row.

extern "C" __global__ void __launch_bounds__(THREADS)
gather_rows(const element* __restrict__ table, const u32* __restrict__ ids, u32 rows, u32 width,
            element* __restrict__ out) {
    const u32 id = ids[blockIdx.x];
    element* to = out + (u64)blockIdx.x * width;
    if (id >= rows) {
        for (u32 i = threadIdx.x; i < width; i += THREADS) to[i] = narrow(not_a_number());
        return;
    }
    const element* from = table + (u64)id * width;
    const u32 quads = (u64)width * sizeof(element) % 16 == 0 ? width * sizeof(element) / 16 : 0;
    for (u32 i = threadIdx.x; i < quads; i += THREADS) {
        reinterpret_cast<Quad*>(to)[i] = reinterpret_cast<const Quad*>(from)[i];
    }
    for (u32 i = quads * (16 / sizeof(element)) + threadIdx.x; i < width; i += THREADS) to[i] = from[i];
}
