// What kernels for the tensor cores of every supported GPU share, one PTX instruction a function (PTX ISA 7.0, from
// compute capability 8.0 on): copies of pieces of 16 bytes into shared memory, which a thread commits and awaits in
// groups; matrices out of shared memory into a warp's registers; their products. Shared memory is named by its 32-bit
// address.

// Begins to copy 16 bytes to shared memory, or zeros where there is nothing to read.
__device__ __forceinline__ void fetch_piece(u32 to, const element* from, bool inside) {
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;"
                 :: "r"(to), "l"(from), "r"(inside ? 16 : 0) : "memory");
}

// Ends a group of copies, which may be empty.
__device__ __forceinline__ void end_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// All groups but so many have arrived for this thread.
template <int GROUPS>
__device__ __forceinline__ void await_all_but() {
    asm volatile("cp.async.wait_group %0;" :: "n"(GROUPS) : "memory");
}

#if defined(ELEMENT_BF16)
#define MMA_TYPES "f32.bf16.bf16.f32"
#else
#define MMA_TYPES "f32.f16.f16.f32"
#endif

// sums += a * b: a [16, 16], b [16, 8]. Of the sums a lane holds rows lane / 4 and lane / 4 + 8, in each the columns
// 2 * (lane % 4) and the next one.
__device__ __forceinline__ void multiply_add(float* sums, const u32* a, u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col." MMA_TYPES
                 " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four matrices of 8 rows of 16 bytes; lane l names row l % 8 of matrix l / 8.
__device__ __forceinline__ void load_matrices(u32* to, u32 from) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(from) : "memory");
}

__device__ __forceinline__ void load_transposed(u32* to, u32 from) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(from) : "memory");
}
