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
