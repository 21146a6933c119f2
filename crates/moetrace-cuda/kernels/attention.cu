// Causal attention inside each span of a packed batch, on tensor cores, for bf16 and f16 (the manner of
// FlashAttention-2, Dao 2023, arXiv 2307.08691). WIDTH is 64 or 128.
//
// Rows of q, k and v lie `stride` elements apart, so that all three may lie in one product's rows; heads lie side by
// side, head h reads the keys and values of head h / group. out [N, heads, WIDTH]. tiles u32 [T, 3]: a span's first
// row, its length, and the first of QUERIES rows, counted from the span's first. Everything begins at multiples of 16
// bytes. Block (t, h) makes tile t of head h.
//
// Scores are f32 and rounded nowhere. With m about the largest so far, p = 2^((score - m) * scale), where `scale` holds
// log2(e) / sqrt(WIDTH); p is summed in f32 and rounded before it meets the values; the sum of those products is
// multiplied by the reciprocal of the sum of p and rounded once. No row outside the span is read, and the arithmetic
// of a row depends on its place in the span alone. A weight of 0 is multiplied with what it hides: a value that is not
// finite spoils up to 63 rows before its own.

#define WARP_ROWS (QUERIES / WARPS)
#define ROW_TILES (WARP_ROWS / 16)

// A row in shared memory, and its pieces of 16 bytes.
#define ROW_BYTES (2 * WIDTH)
#define PIECES (WIDTH / 8)
#define BUFFER_BYTES (KEYS * ROW_BYTES)

// Eight rows of a piece lie in all 32 banks, whether a warp reads along rows or down a column of pieces.
__device__ __forceinline__ u32 place(u32 row, u32 piece) { return row * ROW_BYTES + ((piece ^ (row & 7)) << 4); }

__device__ __forceinline__ u32 next_buffer(u32 buffer, u32 ring) {
    return buffer == ring + 2 * BUFFER_BYTES ? ring : buffer + BUFFER_BYTES;
}

// Begins to copy rows first, first + 1, ... of a span; those behind its end become zeros.
template <int ROWS>
__device__ __forceinline__ void fetch(u32 to, const element* span, u32 stride, u32 first, u32 length) {
    const u32 piece = threadIdx.x % PIECES;
#pragma unroll
    for (int i = 0; i < ROWS * PIECES / THREADS; ++i) {
        const u32 row = threadIdx.x / PIECES + i * (THREADS / PIECES);
        const bool inside = first + row < length;
        const element* from = span + (u64)(inside ? first + row : 0) * stride + 8 * piece;
        fetch_piece(to + place(row, piece), from, inside);
    }
}

// All groups but the last have arrived for all threads, and no thread still reads what came before.
__device__ __forceinline__ void await_all_but_one() {
    await_all_but<1>();
    __syncthreads();
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
attention(const element* __restrict__ q, const element* __restrict__ k, const element* __restrict__ v, u32 stride,
          u32 group, const u32* __restrict__ tiles, float scale, element* __restrict__ out) {
    // Queries, and a ring of three buffers in which keys and values take turns.
    extern __shared__ __align__(1024) u8 memory[];
    const u32 shared = (u32)__cvta_generic_to_shared(memory);
    const u32 ring = shared + QUERIES * ROW_BYTES;

    const u32 start = tiles[3 * blockIdx.x], length = tiles[3 * blockIdx.x + 1], first = tiles[3 * blockIdx.x + 2];
    const u32 head = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    q += (u64)start * stride + head * WIDTH;
    k += (u64)start * stride + head / group * WIDTH;
    v += (u64)start * stride + head / group * WIDTH;
    const u32 end = length < first + QUERIES ? length : first + QUERIES;
    const u32 warp_first = first + warp * WARP_ROWS;

    fetch<QUERIES>(shared, q, stride, first, length);
    fetch<KEYS>(ring, k, stride, 0, length);
    end_group();
    fetch<KEYS>(ring + BUFFER_BYTES, v, stride, 0, length);
    end_group();

    // Where this lane's rows of matrices lie: piece p of a row is at the place of piece 0 or 1 with 32 * (p / 2) xor-ed.
    const u32 query_place = shared + place(warp * WARP_ROWS + lane % 16, lane / 16);
    const u32 key_place = place(lane / 16 * 8 + lane % 8, lane / 8 % 2);
    const u32 value_place = place(lane % 16, lane / 16);

    float sums[ROW_TILES][WIDTH_TILES][4] = {};
    Rows rows[ROW_TILES];
#pragma unroll
    for (int i = 0; i < ROW_TILES; ++i) {
        rows[i].reference[0] = rows[i].reference[1] = -__uint_as_float(0x7F800000);
        rows[i].total[0] = rows[i].total[1] = 0.0f;
    }

    u32 keys = ring;
    for (u32 first_key = 0; first_key < end; first_key += KEYS) {
        const u32 values = next_buffer(keys, ring), next_keys = next_buffer(values, ring);
        const bool more = first_key + KEYS < end;
        // Rows of this warp that see some of these keys.
        const bool seen = first_key < warp_first + WARP_ROWS && warp_first < length;
        u32 weights[ROW_TILES][KEY_TILES][2];

        await_all_but_one();
        if (more) fetch<KEYS>(next_keys, k, stride, first_key + KEYS, length);
        end_group();
        if (seen) {
            float scores[ROW_TILES][KEY_TILES][4] = {};
#pragma unroll
            for (int w = 0; w < WIDTH / 16; ++w) {
                u32 a[ROW_TILES][4];
#pragma unroll
                for (int i = 0; i < ROW_TILES; ++i) load_matrices(a[i], (query_place ^ (w << 5)) + i * 16 * ROW_BYTES);
#pragma unroll
                for (int n = 0; n < KEY_TILES; n += 2) {
                    u32 b[4];
                    load_matrices(b, ((keys + key_place) ^ (w << 5)) + n * 8 * ROW_BYTES);
#pragma unroll
                    for (int i = 0; i < ROW_TILES; ++i) {
                        multiply_add(scores[i][n], a[i], b[0], b[1]);
                        multiply_add(scores[i][n + 1], a[i], b[2], b[3]);
                    }
                }
            }
            if (first_key + KEYS > warp_first + 1) {
#pragma unroll
                for (int i = 0; i < ROW_TILES; ++i) hide_future(scores[i], warp_first + 16 * i, first_key);
            }
            float shrink[ROW_TILES][2];
            bool some = false;
#pragma unroll
            for (int i = 0; i < ROW_TILES; ++i) {
                raise_references(scores[i], rows[i], scale, shrink[i]);
                some |= some_shrink(shrink[i]);
            }
            if (some && first_key > 0) {
#pragma unroll
                for (int i = 0; i < ROW_TILES; ++i) shrink_sums(sums[i], shrink[i]);
            }
#pragma unroll
            for (int i = 0; i < ROW_TILES; ++i) weigh(scores[i], rows[i], scale, weights[i]);
        }

        await_all_but_one();
        if (more) fetch<KEYS>(keys, v, stride, first_key + KEYS, length);
        end_group();
        if (seen) {
#pragma unroll
            for (int n = 0; n < KEY_TILES; n += 2) {
#pragma unroll
                for (int w = 0; w < WIDTH_TILES; w += 2) {
                    u32 b[4];
                    load_transposed(b, ((values + value_place) ^ (w << 4)) + n * 8 * ROW_BYTES);
#pragma unroll
                    for (int i = 0; i < ROW_TILES; ++i) {
                        const u32 a[4] = {weights[i][n][0], weights[i][n][1], weights[i][n + 1][0],
                                          weights[i][n + 1][1]};
                        multiply_add(sums[i][w], a, b[0], b[1]);
                        multiply_add(sums[i][w + 1], a, b[2], b[3]);
                    }
                }
            }
        }
        keys = next_keys;
    }

    // Results go through the warp's own queries, which nobody else reads, to leave in whole rows.
#pragma unroll
    for (int i = 0; i < ROW_TILES; ++i) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const float reciprocal = row_reciprocal(rows[i].total[half]);
            const u32 row = warp * WARP_ROWS + 16 * i + 8 * half + lane / 4;
#pragma unroll
            for (int n = 0; n < WIDTH_TILES; ++n) {
                *reinterpret_cast<u32*>(memory + place(row, n) + lane % 4 * 4) =
                    narrow_pair(sums[i][n][2 * half] * reciprocal, sums[i][n][2 * half + 1] * reciprocal);
            }
        }
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < WARP_ROWS * PIECES / 32; ++i) {
        const u32 row = lane / PIECES + i * (32 / PIECES), piece = lane % PIECES;
        if (warp_first + row < length) {
            element* to = out + ((u64)(start + warp_first + row) * gridDim.y + head) * WIDTH + 8 * piece;
            *reinterpret_cast<Quad*>(to) =
                *reinterpret_cast<const Quad*>(memory + place(warp * WARP_ROWS + row, piece));
        }
    }
}
