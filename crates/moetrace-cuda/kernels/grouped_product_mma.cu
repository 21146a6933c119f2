// The products of grouped_product.cu on the tensor cores of every supported GPU: what is said there of shapes, rounding
// and GATED holds here too. Sums over k run in ascending groups of 16 whatever else is in the launch.
//
// A block makes tiles of 128 rows by 128 columns of weights (GATED: 64 gates and their 64 ups), one after the other.
// Its four warps multiply 64 rows by 64 columns each (GATED: 32 gates and their ups, so that a lane holds both) and
// fetch a ring of STAGES tiles 32 deep. Two blocks share a multiprocessor: while one writes its results, the other
// multiplies. Two times 48 KiB of shared memory are what the smallest GPUs, compute capability 8.6 and 8.9, have.
// A warp whose 64 rows are all behind the expert's last one, or whose columns are behind the last, multiplies nothing.
//
// GATHERED takes rows as they are needed from where the tokens lie, as grouped_product.cu does.

#define SIDE 128
#define DEPTH 32
// A row of a stage is 64 bytes, four pieces of 16.
#define ROW_BYTES (2 * DEPTH)
#define PIECES (DEPTH / 8)
#define SIDE_BYTES (SIDE * ROW_BYTES)
#define STAGE_BYTES (2 * SIDE_BYTES)
#define TILE_COLUMNS (GATED ? 64 : 128)
// Columns of results of a warp, and the bytes that its 64 rows of them take.
#define WARP_COLUMNS (TILE_COLUMNS / 2)
#define RESULT_BYTES (64 * 2 * WARP_COLUMNS)

// Where a piece of a row lies in a stage. Two rows fill all 32 banks once; pieces are exchanged so that eight rows of
// one piece do too, whether a warp reads down a column of pieces or writes along rows.
__device__ __forceinline__ u32 place(u32 row, u32 piece) { return row * ROW_BYTES + ((piece ^ (row / 2 % 4)) << 4); }

struct Tile {
    u32 expert, row, rows, column;
};

// Walks over this block's tiles in ascending order: those of an expert, then those of the next.
struct Walk {
    const u32* offsets;
    u32 experts, rows, columns, expert, ahead;

    __device__ __forceinline__ bool next(Tile& tile) {
        for (; expert < experts; ++expert) {
            const Range range = range_of(offsets, expert, rows);
            const u32 tiles = (range.length + SIDE - 1) / SIDE, all = tiles * columns;
            if (ahead >= all) {
                ahead -= all;
                continue;
            }
            // Neighbours in time share weights and, ROW_TILES at a time, rows: both stay in L2.
            const u32 first = ahead / (ROW_TILES * columns) * ROW_TILES;
            const u32 size = min((u32)ROW_TILES, tiles - first), place = ahead - first * columns;
            const u32 row = (first + place % size) * SIDE;
            tile = Tile{expert, range.begin + row, min((u32)SIDE, range.length - row), place / size};
            ahead += gridDim.x;
            return true;
        }
        return false;
    }
};

// What this thread fetches of a tile: one piece of every 32nd row of both sides, step by step. All of it moves with the
// steps: what could be computed anew is, in every step, since registers are scarce.
struct Source {
    const element *rows[4], *weights[4];
    // Bits 0 to 3: those rows are there; 4 to 7: those weights are.
    u32 there;
    // Elements from this thread's piece to the end of the depth.
    int left;

    // The next 32 elements of all rows; those behind the end of the depth become zeros.
    __device__ __forceinline__ void fetch(u32 to) {
        const u32 now = left > 0 ? there : 0;
#pragma unroll
        for (u32 i = 0; i < 4; ++i, to += 32 * ROW_BYTES) {
            fetch_piece(to, rows[i], now >> i & 1);
            fetch_piece(to + SIDE_BYTES, weights[i], now >> (4 + i) & 1);
            rows[i] += DEPTH;
            weights[i] += DEPTH;
        }
        left -= DEPTH;
    }
};

__device__ __forceinline__ Source source_of(const Tile& tile, const element* lines, u32 line_count, const u32* sources,
                                            const element* weights, u32 depth, u32 width) {
    const u32 line = threadIdx.x / PIECES, first = threadIdx.x % PIECES * 8;
    Source from;
    from.left = (int)(depth - first);
    from.there = 0;
#pragma unroll
    for (u32 i = 0; i < 4; ++i) {
        const u32 row = line + 32 * i;
        u32 number = row < tile.rows ? tile.row + row : NOTHING;
#if GATHERED
        if (number != NOTHING) number = __ldg(sources + number);
#endif
        const bool row_there = number < line_count;
        from.rows[i] = lines + (row_there ? (u64)number * depth + first : 0);
        // GATED: gates and ups take turns, 32 of each for a warp.
        const u32 column = tile.column * TILE_COLUMNS + (GATED ? line + i / 2 * 32 : row);
        const bool weight_there = column < width;
        const u64 matrix = GATED ? 2 * (u64)tile.expert + i % 2 : tile.expert;
        from.weights[i] = weights + (weight_there ? (matrix * width + column) * depth + first : 0);
        from.there |= (u32)row_there << i | (u32)weight_there << (4 + i);
    }
    return from;
}

// A place in the ring of stages, `address` in its current one.
struct Place {
    u32 address, stage;

    __device__ __forceinline__ void advance() {
        const bool last = stage == STAGES - 1;
        address += last ? (u32)-(STAGES - 1) * STAGE_BYTES : STAGE_BYTES;
        stage = last ? 0 : stage + 1;
    }
};

// A warp's part of a stage, 16 deep.
struct Parts {
    u32 rows[4][4], weights[4][4];

    // From these places of a stage, which are those of a half's piece 0 or 1.
    __device__ __forceinline__ void load(u32 rows_place, u32 weights_place) {
#pragma unroll
        for (u32 i = 0; i < 4; ++i) load_matrices(rows[i], rows_place + i * 16 * ROW_BYTES);
#pragma unroll
        for (u32 i = 0; i < 4; ++i) load_matrices(weights[i], weights_place + i * 16 * ROW_BYTES);
    }

    __device__ __forceinline__ void multiply(float (*sums)[8][4]) const {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
#pragma unroll
            for (int n = 0; n < 8; ++n) {
                const u32* pair = weights[n / 2] + n % 2 * 2;
                multiply_add(sums[i][n], rows[i], pair[0], pair[1]);
            }
        }
    }
};

// A warp's results, by way of its part of the shared memory at `memory`, to `out` in whole pieces.
__device__ __forceinline__ void write_out(float (*sums)[8][4], u8* memory, element* out, u32 width, u32 rows,
                                          u32 columns) {
    constexpr u32 WIDE = WARP_COLUMNS / 8;
    const u32 lane = threadIdx.x % 32;
    // As `place`, of rows of four or eight pieces.
    const auto at = [&](u32 row, u32 piece) {
        return row * 16 * WIDE + ((piece ^ (row / (8 / WIDE) % WIDE)) << 4);
    };
#pragma unroll
    for (u32 i = 0; i < 4; ++i) {
#pragma unroll
        for (u32 half = 0; half < 2; ++half) {
#pragma unroll
            for (u32 n = 0; n < WIDE; ++n) {
                const float* low = sums[i][n] + 2 * half;
#if GATED
                const float* up = sums[i][n + 4] + 2 * half;
                const u32 pair = narrow_pair(activated(low[0], up[0]), activated(low[1], up[1]));
#else
                const u32 pair = narrow_pair(low[0], low[1]);
#endif
                *reinterpret_cast<u32*>(memory + at(16 * i + 8 * half + lane / 4, n) + lane % 4 * 4) = pair;
            }
        }
    }
    __syncwarp();
    const u32 piece = lane % WIDE;
#pragma unroll
    for (u32 i = 0; i < 2 * WIDE; ++i) {
        const u32 row = lane / WIDE + i * (32 / WIDE);
        if (row < rows && 8 * piece < columns) {
            store_quad_streaming(out + (u64)row * width + 8 * piece,
                                 *reinterpret_cast<const Quad*>(memory + at(row, piece)));
        }
    }
}

// All groups of copies but the STAGES - 2 latest have arrived for all threads, and no thread still reads what came
// before.
__device__ __forceinline__ void await_stage() {
    await_all_but<STAGES - 2>();
    __syncthreads();
}

// lines [line_count, K]: the rows, expert after expert; GATHERED: row r is line sources[r]. weights [E, (2) N, K].
// Both begin at multiples of 16 bytes, K and N are multiples of eight. offsets [E + 1]; out [rows, N], 16-byte aligned.
// A grid of as many blocks as run at once; shared memory: STAGES stages.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
grouped_product_mma(const element* __restrict__ lines, u32 line_count, const u32* __restrict__ sources,
                    const element* __restrict__ weights, const u32* __restrict__ offsets, u32 experts, u32 rows,
                    u32 depth, u32 width, element* __restrict__ out) {
    extern __shared__ __align__(1024) u8 memory[];
    const u32 ring = (u32)__cvta_generic_to_shared(memory);
    const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const u32 steps = (depth + DEPTH - 1) / DEPTH;
    const u32 fetch_place = ring + place(threadIdx.x / PIECES, threadIdx.x % PIECES);
    // Where this lane's rows of matrices lie in a stage: a matrix of rows is followed by the one below it, then come
    // the eight next elements of both; a matrix of weights by its eight next elements, then come the columns beside.
    const u32 first_row = warp / 2 * 64, first_column = warp % 2 * WARP_COLUMNS;
    const u32 rows_place = ring + place(first_row + lane % 16, lane / 16);
    const u32 weights_place = ring + SIDE_BYTES + place(warp % 2 * 64 + lane / 16 * 8 + lane % 8, lane / 8 % 2);

    Walk walk = {offsets, experts, rows, (width + TILE_COLUMNS - 1) / TILE_COLUMNS, 0, blockIdx.x};
    Tile tile;
    while (walk.next(tile)) {
        // No warp still reads the results of the tile before.
        __syncthreads();
        Source from = source_of(tile, lines, line_count, sources, weights, depth, width);
        const u32 column = tile.column * TILE_COLUMNS + first_column;
        const bool live = first_row < tile.rows && column < width;
        float sums[4][8][4] = {};
        Parts parts[2];
        Place to = {fetch_place, 0}, rows_at = {rows_place, 0}, weights_at = {weights_place, 0};
#pragma unroll
        for (u32 step = 0; step < STAGES - 1; ++step, to.advance()) {
            if (step < steps) from.fetch(to.address);
            end_group();
        }
        await_stage();
        if (live) parts[0].load(rows_at.address, weights_at.address);
        for (u32 step = 0; step < steps; ++step) {
            if (step + STAGES - 1 < steps) from.fetch(to.address);
            end_group();
            to.advance();
            if (live) {
                // Pieces 2 and 3 are where pieces 0 and 1 are, with 32 xor-ed.
                parts[1].load(rows_at.address ^ 32, weights_at.address ^ 32);
                parts[0].multiply(sums);
            }
            await_stage();
            rows_at.advance();
            weights_at.advance();
            if (live) {
                // Behind the last step these are old elements that nobody multiplies: cheaper than asking in every step.
                parts[0].load(rows_at.address, weights_at.address);
                parts[1].multiply(sums);
            }
        }
        // No warp still reads those where another writes its results.
        __syncthreads();
        if (live) {
            write_out(sums, memory + warp * RESULT_BYTES, out + (u64)(tile.row + first_row) * width + column, width,
                      tile.rows - first_row, width - column);
        }
    }
}
