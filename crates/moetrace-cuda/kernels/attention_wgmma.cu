// Causal attention as `attention.cu` has it, arguments and rounding too, with the matrix instructions of GPUs of compute
// capability 9.0, which read shared memory by themselves. For other architectures it is a trap, and
// no launcher loads it there.
//
// Four warps at a time make 64 query rows. A tile of queries, keys or values lies in shared memory as WIDTH / 64 panels
// of 64 columns: rows of 128 bytes, in each eight of which the pieces of 16 bytes are permuted by the row's number
// ("128-byte swizzle" in the PTX manual).

#define PANELS (WIDTH / 64)
#define ROW_BYTES 128
#define EIGHT_BYTES (8 * ROW_BYTES)
#define BUFFER_BYTES (KEYS * ROW_BYTES * PANELS)
#define PIECES (WIDTH / 8)
#define GROUP_ROWS 64

#if defined(ELEMENT_BF16)
#define WGMMA_TYPES "f32.bf16.bf16"
#else
#define WGMMA_TYPES "f32.f16.f16"
#endif

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
// A matrix in shared memory: where it begins; bytes from panel to panel where its rows run along the summed dimension
// (values), otherwise unused; bytes from eight rows to the next; the swizzle.
__device__ __forceinline__ u64 matrix(u32 at, u32 panel_bytes) {
    return (u64)((at & 0x3FFFF) >> 4) | (u64)(panel_bytes >> 4) << 16 | (u64)(EIGHT_BYTES >> 4) << 32 | 1ull << 62;
}

#define FOUR(n) "+f"(sums[n][0]), "+f"(sums[n][1]), "+f"(sums[n][2]), "+f"(sums[n][3])

// sums = a * b, or with `add` that much more: a [64, 16] and b [16, KEYS], both with rows along the sum.
__device__ __forceinline__ void multiply_queries(float (*sums)[4], u64 a, u64 b, u32 add) {
    asm volatile(
        "{ .reg .pred add; setp.ne.b32 add, %34, 0; "
        "wgmma.mma_async.sync.aligned.m64n64k16." WGMMA_TYPES " {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
        "%32, %33, add, 1, 1, 0, 0; }"
        : FOUR(0), FOUR(1), FOUR(2), FOUR(3), FOUR(4), FOUR(5), FOUR(6), FOUR(7)
        : "l"(a), "l"(b), "r"(add));
}

#if WIDTH == 128
// sums += a * b: a [64, 16] in registers, b [16, WIDTH] with rows across the sum.
__device__ __forceinline__ void multiply_values(float (*sums)[4], const u32* a, u64 b) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n128k16." WGMMA_TYPES " {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
        "{%64, %65, %66, %67}, %68, 1, 1, 1, 1;"
        : FOUR(0), FOUR(1), FOUR(2), FOUR(3), FOUR(4), FOUR(5), FOUR(6), FOUR(7),
          FOUR(8), FOUR(9), FOUR(10), FOUR(11), FOUR(12), FOUR(13), FOUR(14), FOUR(15)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
#else
// As above.
__device__ __forceinline__ void multiply_values(float (*sums)[4], const u32* a, u64 b) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n64k16." WGMMA_TYPES " {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
        "{%32, %33, %34, %35}, %36, 1, 1, 1, 1;"
        : FOUR(0), FOUR(1), FOUR(2), FOUR(3), FOUR(4), FOUR(5), FOUR(6), FOUR(7)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
#endif

// Registers that products read or write are settled.
__device__ __forceinline__ void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

__device__ __forceinline__ void await_products() {
    asm volatile("wgmma.commit_group.sync.aligned;\n\twgmma.wait_group.sync.aligned 0;" ::: "memory");
}

__device__ __forceinline__ u32 place(u32 row, u32 piece) { return row * ROW_BYTES + ((piece ^ (row & 7)) << 4); }

__device__ __forceinline__ u32 next_buffer(u32 buffer, u32 ring) {
    return buffer == ring + 2 * BUFFER_BYTES ? ring : buffer + BUFFER_BYTES;
}

// Begins to copy rows first, first + 1, ... of a span; those behind its end become zeros.
template <int ROWS>
__device__ __forceinline__ void fetch(u32 to, const element* span, u32 stride, u32 first, u32 length) {
    const u32 piece = threadIdx.x % PIECES;
    to += piece / 8 * ROWS * ROW_BYTES;
#pragma unroll
    for (int i = 0; i < ROWS * PIECES / THREADS; ++i) {
        const u32 row = threadIdx.x / PIECES + i * (THREADS / PIECES);
        const bool inside = first + row < length;
        const element* from = span + (u64)(inside ? first + row : 0) * stride + 8 * piece;
        fetch_piece(to + place(row, piece % 8), from, inside);
    }
}

// All groups but the last have arrived for all threads, where products see them, and no thread still reads what came
// before.
__device__ __forceinline__ void await_all_but_one() {
    await_all_but<1>();
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    __syncthreads();
}
#endif

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
attention_wgmma(const element* __restrict__ q, const element* __restrict__ k, const element* __restrict__ v, u32 stride,
                u32 group, const u32* __restrict__ tiles, float scale, element* __restrict__ out) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    // Queries, and a ring of three buffers in which keys and values take turns.
    extern __shared__ __align__(1024) u8 memory[];
    const u32 shared = (u32)__cvta_generic_to_shared(memory);
    const u32 ring = shared + QUERIES * ROW_BYTES * PANELS;

    const u32 start = tiles[3 * blockIdx.x], length = tiles[3 * blockIdx.x + 1], first = tiles[3 * blockIdx.x + 2];
    const u32 head = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    q += (u64)start * stride + head * WIDTH;
    k += (u64)start * stride + head / group * WIDTH;
    v += (u64)start * stride + head / group * WIDTH;
    const u32 end = length < first + QUERIES ? length : first + QUERIES;
    const u32 group_row = warp / 4 * GROUP_ROWS, warp_row = warp * 16;

    fetch<QUERIES>(shared, q, stride, first, length);
    fetch<KEYS>(ring, k, stride, 0, length);
    end_group();
    fetch<KEYS>(ring + BUFFER_BYTES, v, stride, 0, length);
    end_group();

    float sums[WIDTH_TILES][4] = {};
    Rows rows = {{-__uint_as_float(0x7F800000), -__uint_as_float(0x7F800000)}, {0.0f, 0.0f}};

    u32 keys = ring;
    for (u32 first_key = 0; first_key < end; first_key += KEYS) {
        const u32 values = next_buffer(keys, ring), next_keys = next_buffer(values, ring);
        const bool more = first_key + KEYS < end;
        // Rows of these four warps that see some of these keys.
        const bool seen = first_key < first + group_row + GROUP_ROWS && first + group_row < length;
        u32 weights[KEY_TILES][2];

        await_all_but_one();
        if (more) fetch<KEYS>(next_keys, k, stride, first_key + KEYS, length);
        end_group();
        if (seen) {
            float scores[KEY_TILES][4];
            begin_products();
#pragma unroll
            for (int w = 0; w < WIDTH / 16; ++w) {
                const u32 a = shared + w / 4 * QUERIES * ROW_BYTES + group_row * ROW_BYTES + w % 4 * 32;
                const u32 b = keys + w / 4 * KEYS * ROW_BYTES + w % 4 * 32;
                multiply_queries(scores, matrix(a, 16), matrix(b, 16), w > 0);
            }
            await_products();
            // The diagonal crosses these keys.
            if (first_key + KEYS > first + group_row + 1) hide_future(scores, first + warp_row, first_key);
            float shrink[2];
            raise_references(scores, rows, scale, shrink);
            if (some_shrink(shrink) && first_key > 0) shrink_sums(sums, shrink);
            weigh(scores, rows, scale, weights);
        }

        await_all_but_one();
        if (more) fetch<KEYS>(keys, v, stride, first_key + KEYS, length);
        end_group();
        if (seen) {
            begin_products();
#pragma unroll
            for (int n = 0; n < KEY_TILES; n += 2) {
                const u32 a[4] = {weights[n][0], weights[n][1], weights[n + 1][0], weights[n + 1][1]};
                multiply_values(sums, a, matrix(values + n * EIGHT_BYTES, KEYS * ROW_BYTES));
            }
            await_products();
        }
        keys = next_keys;
    }

    // Results go through the place of the queries, which nobody reads since the last barrier, to leave in whole rows.
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const float reciprocal = row_reciprocal(rows.total[half]);
        const u32 row = warp_row + 8 * half + lane / 4;
#pragma unroll
        for (int n = 0; n < WIDTH_TILES; ++n) {
            *reinterpret_cast<u32*>(memory + n / 8 * QUERIES * ROW_BYTES + place(row, n % 8) + lane % 4 * 4) =
                narrow_pair(sums[n][2 * half] * reciprocal, sums[n][2 * half + 1] * reciprocal);
        }
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 16 * PIECES / 32; ++i) {
        const u32 row = warp_row + lane / PIECES + i * (32 / PIECES), piece = lane % PIECES;
        if (first + row < length) {
            element* to = out + ((u64)(start + first + row) * gridDim.y + head) * WIDTH + 8 * piece;
            *reinterpret_cast<Quad*>(to) = *reinterpret_cast<const Quad*>(
                memory + piece / 8 * QUERIES * ROW_BYTES + place(row, piece % 8));
        }
    }
#else
    __trap();
#endif
}
