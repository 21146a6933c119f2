// What every kernel begins with. No header of the toolkit is included: NVRTC has none without an include path.
// One of ELEMENT_BF16, ELEMENT_F16 and ELEMENT_F32 says what `element` is: the type that values are stored in.
// Arithmetic is f32; `--fmad=false` keeps products and sums apart, so that both round as the CPU engine's do.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

struct __align__(16) Quad {
    u32 x, y, z, w;
};

#if defined(ELEMENT_BF16)
typedef u16 element;

__device__ __forceinline__ float widen(element bits) { return __uint_as_float((u32)bits << 16); }

// To nearest, ties to even.
__device__ __forceinline__ element narrow(float value) {
    element bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}

__device__ __forceinline__ u32 narrow_pair(float low, float high) {
    u32 bits;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
    return bits;
}
#elif defined(ELEMENT_F16)
typedef u16 element;

__device__ __forceinline__ float widen(element bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}

__device__ __forceinline__ element narrow(float value) {
    element bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}

__device__ __forceinline__ u32 narrow_pair(float low, float high) {
    u32 bits;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
    return bits;
}
#else
typedef float element;

__device__ __forceinline__ float widen(element value) { return value; }
__device__ __forceinline__ element narrow(float value) { return value; }
#endif

// The value as `element` keeps it.
__device__ __forceinline__ float rounded(float value) { return widen(narrow(value)); }

// Eight elements from a multiple of 16 bytes, as one load of 16 bytes (two for f32), and back.
__device__ __forceinline__ void load_eight(const element* from, float* values) {
    const Quad* quads = reinterpret_cast<const Quad*>(from);
#if defined(ELEMENT_F32)
    const Quad low = quads[0], high = quads[1];
    const u32 words[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
    for (int i = 0; i < 8; ++i) values[i] = __uint_as_float(words[i]);
#else
    const Quad quad = quads[0];
    const u32 words[4] = {quad.x, quad.y, quad.z, quad.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        values[2 * i] = widen((element)(words[i] & 0xFFFF));
        values[2 * i + 1] = widen((element)(words[i] >> 16));
    }
#endif
}

__device__ __forceinline__ void store_eight(element* to, const float* values) {
    Quad* quads = reinterpret_cast<Quad*>(to);
#if defined(ELEMENT_F32)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const float* four = values + 4 * half;
        quads[half] = Quad{__float_as_uint(four[0]), __float_as_uint(four[1]), __float_as_uint(four[2]),
                           __float_as_uint(four[3])};
    }
#else
    quads[0] = Quad{narrow_pair(values[0], values[1]), narrow_pair(values[2], values[3]),
                    narrow_pair(values[4], values[5]), narrow_pair(values[6], values[7])};
#endif
}

// Where eights end and single elements begin in a row of `width`: rows begin at multiples of 16 bytes only if the
// width is a multiple of eight.
__device__ __forceinline__ u32 eights_of(u32 width) { return width % 8 == 0 ? width / 8 : 0; }

__device__ __forceinline__ float not_a_number() { return __uint_as_float(0x7FFFFFFF); }
