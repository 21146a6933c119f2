// Rows and weights of the grouped products into the ring of stages. grouped_product.cu says what for.

// Where the weights of a tile begin: gates and ups, or the first and the last half of its columns.
__device__ __forceinline__ void fetch_weights(const Walk& walk, const Tile& tile, u32 to, const TensorMap* map,
                                              u32 step, u32 width, u32 filled) {
    const u32 first = tile.expert * (GATED ? 2 : 1) * width + tile.column * TILE_COLUMNS;
    const u32 second = first + (GATED ? width : 128), depth = step * DEPTH;
    if (tile.weights_shared) {
        const u32 half = walk.rank * (WEIGHTS_BYTES / 2);
        copy_box_to_both(to + half, map, depth, walk.rank ? second : first, filled);
    } else if (tile.live) {
        copy_box(to, map, depth, first, filled);
        copy_box(to + WEIGHTS_BYTES / 2, map, depth, second, filled);
    }
}

// Rows that lie expert after expert: one thread.
__device__ __forceinline__ void fetch(Walk walk, const Shared& at, const TensorMap* rows_map,
                                      const TensorMap* weights_map, u32 steps, u32 width) {
    Ring ring = {0, 1};
    Tile tile;
    while (walk.next(tile)) {
        const bool upper = tile.rows > 64;
        const u32 bytes = (upper ? ROWS_BYTES : HALF_BYTES) + (tile.live ? WEIGHTS_BYTES : 0);
        for (u32 step = 0; step < steps; ++step, ring.advance()) {
            const u32 filled = at.filled + 8 * ring.stage, rows = at.tiles + STAGE_BYTES * ring.stage;
            const u32 depth = step * DEPTH;
            barrier_wait(at.emptied + 8 * ring.stage, ring.parity);
            barrier_expect(filled, bytes);
            fetch_weights(walk, tile, rows + ROWS_BYTES, weights_map, step, width, filled);
            if (tile.weights_shared) {
                copy_box(rows, rows_map, depth, tile.row, filled);
                if (upper) copy_box(rows + HALF_BYTES, rows_map, depth, tile.row + 64, filled);
            } else if (walk.rank == 0 || upper) {
                const u32 half = walk.rank * HALF_BYTES;
                copy_box_to_both(rows + half, rows_map, depth, tile.row + 64 * walk.rank, filled);
            }
        }
    }
}

// Rows written by this warp's threads, not by TMA: each makes its own visible to the tensor cores, then one arrives.
__device__ __forceinline__ void publish(u32 filled) {
    async_fence();
    __syncwarp();
    if (threadIdx.x % 32 == 0) barrier_arrive(filled);
}

// Rows of tokens that `sources` names, zeros where it names none: 128 threads. Eight lanes fetch 128 bytes of a row and
// place the pieces as TMA's swizzle would. A stage is published when the next one is under way, which was faster than
// at once and than two later.
__device__ __forceinline__ void fetch_gathered(Walk walk, const Shared& at, const element* tokens, u32 token_count,
                                               const u32* sources, const TensorMap* weights_map, u32 steps, u32 pieces,
                                               u32 width) {
    const u32 piece = threadIdx.x % 8, line = threadIdx.x / 8;
    const u32 place = line * 128 + ((piece ^ (line % 8)) * 16);
    Ring ring = {0, 1}, behind = {0, 0};
    Tile tile;
    bool under_way = false;
    while (walk.next(tile)) {
        const bool upper = tile.rows > 64;
        // Where this thread's eight rows begin, in pieces of eight elements.
        u32 from[8];
#pragma unroll
        for (u32 i = 0; i < 8; ++i) {
            const u32 row = line + 16 * i;
            const u32 token = tile.live && row < tile.rows ? __ldg(sources + tile.row + row) : NOTHING;
            from[i] = token < token_count ? token * pieces : NOTHING;
        }
        for (u32 step = 0; step < steps; ++step, ring.advance()) {
            const u32 filled = at.filled + 8 * ring.stage, rows = at.tiles + STAGE_BYTES * ring.stage;
            const u32 column = step * (DEPTH / 8) + piece;
            barrier_wait(at.emptied + 8 * ring.stage, ring.parity);
            if (threadIdx.x == 0) {
                barrier_expect(filled, tile.live ? WEIGHTS_BYTES : 0);
                fetch_weights(walk, tile, rows + ROWS_BYTES, weights_map, step, width, filled);
            }
#pragma unroll
            for (u32 i = 0; i < 8; ++i) {
                if (i >= 4 && !upper) break;
                const bool there = from[i] != NOTHING && column < pieces;
                const element* source = tokens + 8 * (u64)(there ? from[i] + column : 0);
                copy_piece(rows + place + 16 * 128 * i, source, there ? 16 : 0);
            }
            copies_commit();
            if (under_way) {
                copies_wait<1>();
                publish(at.filled + 8 * behind.stage);
                behind.advance();
            }
            under_way = true;
        }
    }
    if (under_way) {
        copies_wait<0>();
        publish(at.filled + 8 * behind.stage);
    }
}
