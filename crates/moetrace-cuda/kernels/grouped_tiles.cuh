// Which tiles of the grouped products a block makes, and when. grouped_product.cu says what for.

#define TILE_ROWS 128
#define TILE_COLUMNS (GATED ? 128 : 256)
#define DEPTH 64
#define HALF_BYTES (64 * DEPTH * 2)
#define ROWS_BYTES (2 * HALF_BYTES)
#define WEIGHTS_BYTES (4 * HALF_BYTES)
#define STAGE_BYTES (ROWS_BYTES + WEIGHTS_BYTES)
#define OUT_BYTES (TILE_ROWS * 128 * 2)

// Tiles of one expert for a cluster, counted in pairs of a tile for each block.
struct Pairs {
    u32 shared_weights, columns, all;
};

__device__ __forceinline__ Pairs pairs_of(u32 rows, u32 columns) {
    const u32 tiles = (rows + TILE_ROWS - 1) / TILE_ROWS, shared = tiles / 2 * columns;
    return Pairs{shared, columns, shared + (tiles & 1 ? (columns + 1) / 2 : 0)};
}

// What this block does of a pair.
struct Tile {
    u32 expert, row, rows, column;
    bool weights_shared, live;
};

// Walks over this cluster's pairs in ascending order.
struct Walk {
    const u32* pairs_before;
    const u32* offsets;
    u32 experts, rows, columns, rank, expert, pair;

    __device__ __forceinline__ bool next(Tile& tile) {
        if (pair >= pairs_before[experts]) return false;
        while (pairs_before[expert + 1] <= pair) ++expert;
        const Range range = range_of(offsets, expert, rows);
        const u32 tiles = (range.length + TILE_ROWS - 1) / TILE_ROWS, shared = tiles / 2 * columns;
        u32 place = pair - pairs_before[expert], row;
        tile.expert = expert;
        tile.weights_shared = place < shared;
        if (tile.weights_shared) {
            // Neighbours in time share weights and, ROW_PAIRS at a time, rows: both stay in L2.
            const u32 group = place / (ROW_PAIRS * columns), first = group * ROW_PAIRS;
            const u32 size = min((u32)ROW_PAIRS, tiles / 2 - first);
            place -= first * columns;
            tile.column = place / size;
            row = (2 * (first + place % size) + rank) * TILE_ROWS;
        } else {
            tile.column = 2 * (place - shared) + rank;
            row = (tiles - 1) * TILE_ROWS;
        }
        tile.live = tile.column < columns;
        tile.row = range.begin + row;
        tile.rows = min((u32)TILE_ROWS, range.length - row);
        pair += gridDim.x / 2;
        return true;
    }
};

// pairs_before[e]: pairs of all experts before e; the first warp sums what all threads counted.
__device__ __forceinline__ void count_pairs(u32* pairs_before, const u32* offsets, u32 experts, u32 rows, u32 columns) {
    for (u32 e = threadIdx.x; e < experts; e += THREADS) {
        pairs_before[e + 1] = pairs_of(range_of(offsets, e, rows).length, columns).all;
    }
    if (threadIdx.x == 0) pairs_before[0] = 0;
    __syncthreads();
    if (threadIdx.x >= 32) return;
    u32 before = 0;
    for (u32 first = 1; first <= experts; first += 32) {
        const u32 e = first + threadIdx.x;
        u32 sum = e <= experts ? pairs_before[e] : 0;
#pragma unroll
        for (u32 distance = 1; distance < 32; distance *= 2) {
            const u32 other = __shfl_up_sync(0xFFFFFFFF, sum, distance);
            if (threadIdx.x >= distance) sum += other;
        }
        if (e <= experts) pairs_before[e] = before + sum;
        before += __shfl_sync(0xFFFFFFFF, sum, 31);
    }
}

// A place in the ring of stages, and the parity of its current round.
struct Ring {
    u32 stage, parity;

    __device__ __forceinline__ void advance() {
        if (++stage == STAGES) {
            stage = 0;
            parity ^= 1;
        }
    }
};

struct Shared {
    u32 tiles, out, filled, emptied;
};
