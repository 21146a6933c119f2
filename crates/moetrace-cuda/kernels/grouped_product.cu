// Every expert's rows times that expert's weights, all experts in one launch, on Hopper's tensor cores.
//
// In the letters of matrix products: for each expert e, out[m, n] = sum over k of rows[m, k] weights[e, n, k], m in
// offsets[e] .. offsets[e + 1]. GATED: the weights have twice as many rows, gates before ups, and
// out = silu(gate) * up, both kept in f32 until then, rounded once. Sums over k run in ascending groups of 64 whatever
// else is in the launch: no row's bits depend on the rows beside it.
//
// A block makes tiles of 128 rows by 256 columns (GATED: 128 gates and their 128 ups), one after the other; two blocks
// are a cluster. One warp (GATHERED: four) fetches ahead into STAGES pairs of tiles 64 deep; two groups of four warps
// each multiply 64 rows and write them out, each at its own pace. A group whose 64 rows are all behind the expert's
// last one multiplies nothing. The blocks of a cluster work on two tiles of rows and the same weights, each fetching
// half of the weights for both; the last tile of an odd number goes to both, with neighbouring columns, each fetching
// half of its rows for both (GATHERED: all of them).
//
// GATHERED takes rows as they are needed from where the tokens lie, so that no copy of R rows is made. On an H200
// (examples/grouped_speed.rs) its rate is 5 to 9 % above that of copying first for F = 768, between 12 % below and 3 %
// above for 1,024 and 1,408, and 6 to 18 % below for wider experts, whose rows are fetched more often.
//
// Tried on an H200 and not faster: groups of 2 to 32 pairs of tiles of rows, three stages, a head start for one group.
// Slower: arrivals with cluster-wide release (a fence of all memory each, a fifth of the rate), stores that stay in L2
// (1 to 3 %), a rounded quotient in the activation (up to 2 %).

// Both blocks may fill this stage again, as far as this warp is concerned.
__device__ __forceinline__ void release(const Shared& at, u32 stage) {
    if (threadIdx.x % 32 < 2) barrier_arrive_at(at.emptied + 8 * stage, threadIdx.x % 32);
}

// 128 columns of a warp's 16 rows, through its 4 KiB of shared memory, 16 bytes a lane. `value(g, i)` is the i-th of
// four values in the g-th group of eight columns.
template <typename Value>
__device__ __forceinline__ void write_out(u32 place, element* out, u32 width, u32 rows, u32 columns, Value value) {
    const u32 lane = threadIdx.x % 32, row = lane % 8 + (lane & 8), odd = lane >> 4;
#pragma unroll
    for (int g = 0; g < 16; g += 2) {
        // Pieces of 16 bytes are exchanged within a row, so that a column of rows lies in all banks.
        const u32 address = place + row * 256 + ((((u32)g + odd) ^ (row % 8)) * 16);
        store_blocks(address, narrow_pair(value(g, 0), value(g, 1)), narrow_pair(value(g, 2), value(g, 3)),
                     narrow_pair(value(g + 1, 0), value(g + 1, 1)), narrow_pair(value(g + 1, 2), value(g + 1, 3)));
    }
    __syncwarp();
    const u32 piece = lane % 16;
#pragma unroll
    for (u32 i = 0; i < 8; ++i) {
        const u32 line = 2 * i + lane / 16;
        const Quad quad = load_shared_quad(place + line * 256 + ((piece ^ (line % 8)) * 16));
        if (line < rows && 8 * piece < columns) {
            store_quad_streaming(out + (u64)line * width + 8 * piece, quad);
        }
    }
    __syncwarp();
}

// A group of four warps: products of 64 rows.
__device__ __forceinline__ void multiply(Walk walk, const Shared& at, u32 steps, u32 width, element* out) {
    const u32 group = threadIdx.x / 128 - 1, warp = threadIdx.x / 32 % 4;
    const u32 place = at.out + group * (OUT_BYTES / 2) + warp * (OUT_BYTES / 8);
    Ring ring = {0, 0};
    Tile tile;
    float d[128];
    while (walk.next(tile)) {
        if (!tile.live || tile.rows <= 64 * group) {
            for (u32 step = 0; step < steps; ++step, ring.advance()) {
                barrier_wait(at.filled + 8 * ring.stage, ring.parity);
                release(at, ring.stage);
            }
            continue;
        }
        u32 before = 0;
        for (u32 step = 0; step < steps; ++step, ring.advance()) {
            const u32 rows = at.tiles + STAGE_BYTES * ring.stage;
            const u64 a = tile_descriptor(rows + group * HALF_BYTES), b = tile_descriptor(rows + ROWS_BYTES);
            barrier_wait(at.filled + 8 * ring.stage, ring.parity);
            pin(d);
            products_begin();
#pragma unroll
            for (u32 k = 0; k < DEPTH / 16; ++k) product_64x256x16(d, a + 2 * k, b + 2 * k, step | k);
            products_commit();
            pin(d);
            products_wait<1>();
            if (step > 0) release(at, before);
            before = ring.stage;
        }
        products_wait<0>();
        pin(d);
        release(at, before);
        const u32 row = 64 * group + 16 * warp, column = tile.column * TILE_COLUMNS;
        const u32 rows = tile.rows > row ? tile.rows - row : 0;
        element* to = out + (u64)(tile.row + row) * width + column;
#if GATED
        write_out(place, to, width, rows, width - column,
                  [&](int g, int i) { return activated(d[4 * g + i], d[4 * (g + 16) + i]); });
#else
        write_out(place, to, width, rows, width - column, [&](int g, int i) { return d[4 * g + i]; });
        if (column + 128 < width) {
            write_out(place, to + 128, width, rows, width - column - 128,
                      [&](int g, int i) { return d[4 * (g + 16) + i]; });
        }
#endif
    }
}

// rows [R, K] and weights [E (2) N, K] through their maps, boxes of 64 columns by 64 and by 128 rows; GATHERED: row r is
// row sources[r] of tokens [token_count, K], 16-byte aligned. offsets [E + 1], E at most EXPERTS; out [rows, N], 16-byte aligned, N a multiple of eight. A grid of clusters, as many blocks as run
// at once; shared memory: STAGES stages, the tile of results, two barriers a stage, EXPERTS + 1 counts.
extern "C" __global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(THREADS, 1)
grouped_product(const __grid_constant__ TensorMap rows_map, const __grid_constant__ TensorMap weights_map,
                const element* __restrict__ tokens, u32 token_count, const u32* __restrict__ sources,
                const u32* __restrict__ offsets, u32 experts, u32 rows, u32 depth, u32 width,
                element* __restrict__ out) {
    extern __shared__ __align__(1024) u8 memory[];
    const u32 columns = (width + TILE_COLUMNS - 1) / TILE_COLUMNS, steps = (depth + DEPTH - 1) / DEPTH;
    u32* pairs_before = reinterpret_cast<u32*>(memory + STAGES * STAGE_BYTES + OUT_BYTES + 16 * STAGES);
    Shared at;
    at.tiles = shared_address(memory);
    at.out = at.tiles + STAGES * STAGE_BYTES;
    at.filled = at.out + OUT_BYTES;
    at.emptied = at.filled + 8 * STAGES;
    if (threadIdx.x == 0) {
        for (u32 stage = 0; stage < STAGES; ++stage) {
            // The thread that fetches boxes, and the four warps that gather rows.
            barrier_init(at.filled + 8 * stage, GATHERED ? 5 : 1);
            // Eight multiplying warps of each of two blocks.
            barrier_init(at.emptied + 8 * stage, 16);
        }
        barrier_init_fence();
        if (!GATHERED) prefetch_map(&rows_map);
        prefetch_map(&weights_map);
    }
    count_pairs(pairs_before, offsets, experts, rows, columns);
    __syncthreads();
    cluster_barrier();
    Walk walk = {pairs_before, offsets, experts, rows, columns, cluster_rank(), 0, blockIdx.x / 2};
    if (threadIdx.x < 128) {
#if GATHERED
        give_registers<88>();
        fetch_gathered(walk, at, tokens, token_count, sources, &weights_map, steps, depth / 8, width);
#else
        give_registers<40>();
        if (threadIdx.x == 0) fetch(walk, at, &rows_map, &weights_map, steps, width);
#endif
    } else {
        take_registers<GATHERED ? 208 : 232>();
        multiply(walk, at, steps, width, out);
    }
    // No block ends while the other may still write into its memory or arrive at its barriers.
    cluster_barrier();
}
