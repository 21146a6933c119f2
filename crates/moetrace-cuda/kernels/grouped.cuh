// What both kernels of the grouped products share.

// A row that no token stands for.
#define NOTHING 0xFFFFFFFF

// Where an expert's rows begin, and how many there are; never past the last row, whatever the offsets say.
struct Range {
    u32 begin, length;
};

__device__ __forceinline__ Range range_of(const u32* offsets, u32 expert, u32 rows) {
    const u32 end = min(__ldg(offsets + expert + 1), rows), begin = min(__ldg(offsets + expert), end);
    return Range{begin, end - begin};
}

// As silu_multiply.cu; where 1 + e^-x overflows or nearly does, x below -87, the quotient is 0 and off by 1e-36.
__device__ __forceinline__ float activated(float gate, float up) {
    float part;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(part) : "f"(1.0f + __expf(-gate)));
    return gate * part * up;
}

// Past L2 as far as it goes: for results that would push out what is read again.
__device__ __forceinline__ void store_quad_streaming(void* to, Quad quad) {
    asm volatile("st.global.cs.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(quad.x), "r"(quad.y), "r"(quad.z),
                 "r"(quad.w)
                 : "memory");
}
