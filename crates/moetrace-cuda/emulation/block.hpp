// One block of a GPU on the CPU: a fibre for every thread, and kernels/common.cuh, mma.cuh and grouped.cuh again, where
// they are PTX as the PTX ISA describes it. A kernel's own text is compiled behind this. bf16 only.
//
// It is stricter than a GPU: copies arrive when they are awaited and not before, and what they will overwrite is NaN
// from the moment they begin; memory outside of what was named, addresses that are not aligned and barriers that not
// all threads reach end the program.
#pragma once
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <vector>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef u16 element;
using std::min;

#define __device__
#define __forceinline__ inline
#define __global__
#define __launch_bounds__(...)
#define __shared__
#define __align__(bytes)

struct alignas(16) Quad {
    u32 x, y, z, w;
};

[[noreturn]] inline void wrong(const char* what) {
    std::printf("wrong: %s\n", what);
    std::exit(1);
}

// ---- Threads

enum class Wait { Nothing, Block, Warp };

struct Fibre {
    ucontext_t context;
    std::vector<char> stack = std::vector<char>(1 << 16);
    bool ended = true;
    Wait wait = Wait::Nothing;
};

inline Fibre fibres[THREADS];
inline ucontext_t outside;
inline u32 current;
inline std::function<void()> kernel;

struct Current {
    struct Number {
        operator u32() const { return current; }
    } x;
};
struct Numbers {
    u32 x;
};
inline Current threadIdx;
inline Numbers blockIdx, gridDim;

inline void pause(Wait wait) {
    fibres[current].wait = wait;
    swapcontext(&fibres[current].context, &outside);
}
inline void __syncthreads() { pause(Wait::Block); }
inline void __syncwarp() { pause(Wait::Warp); }

// ---- Memory

alignas(1024) inline u8 memory[STAGES * STAGE];
// Where shared memory begins in its window.
inline const u32 SHARED = 1024;
inline std::vector<std::pair<const u8*, size_t>> readable;
inline element* results;
inline std::vector<u32> written;

inline u32 __cvta_generic_to_shared(const void* pointer) { return SHARED + (u32)((const u8*)pointer - memory); }

inline u8* shared(u32 address) {
    if (address < SHARED || address + 16 > SHARED + sizeof memory || address % 16) wrong("a shared address");
    return memory + (address - SHARED);
}

template <typename T>
T __ldg(const T* from) {
    return *from;
}

inline void store_quad_streaming(void* to, Quad quad) {
    const size_t first = (element*)to - results;
    if ((u64)to % 16 || (element*)to < results || first + 8 > written.size()) wrong("a store");
    for (size_t i = first; i < first + 8; ++i) ++written[i];
    std::memcpy(to, &quad, 16);
}

struct Copy {
    u32 to;
    Quad bytes;
};
inline std::vector<std::vector<Copy>> groups[THREADS];
inline std::vector<Copy> open_group[THREADS];

inline void fetch_piece(u32 to, const element* from, bool inside) {
    Copy copy = {to, {}};
    if ((u64)from % 16) wrong("the alignment of a copy");
    if (inside) {
        const u8* first = (const u8*)from;
        const auto holds = [&](auto part) { return first >= part.first && first + 16 <= part.first + part.second; };
        if (std::none_of(readable.begin(), readable.end(), holds)) wrong("a copy from nowhere");
        std::memcpy(&copy.bytes, from, 16);
    }
    std::memset(shared(to), 0xFF, 16);
    open_group[current].push_back(copy);
}

inline void end_group() {
    groups[current].push_back(open_group[current]);
    open_group[current].clear();
}

template <int GROUPS>
void await_all_but() {
    auto& mine = groups[current];
    while (mine.size() > GROUPS) {
        for (const Copy& copy : mine[0]) std::memcpy(shared(copy.to), &copy.bytes, 16);
        mine.erase(mine.begin());
    }
}

// ---- Arithmetic

inline float widen(element bits) {
    const u32 word = (u32)bits << 16;
    float value;
    std::memcpy(&value, &word, 4);
    return value;
}

inline element narrow(float value) {
    u32 word;
    std::memcpy(&word, &value, 4);
    if (std::isnan(value)) return 0x7FFF;
    return (word + 0x7FFF + (word >> 16 & 1)) >> 16;
}

inline u32 narrow_pair(float low, float high) { return narrow(low) | (u32)narrow(high) << 16; }
inline float activated(float gate, float up) { return gate / (1.0f + std::exp(-gate)) * up; }

// What the lanes of a warp lend each other.
struct Lent {
    u32 address, a[4], b[2];
};
inline Lent lent[THREADS];

// ldmatrix.x4: lane l gives the address of row l % 8 of matrix l / 8, and gets elements 2 (l % 4) and the next of row
// l / 4 of each.
inline void load_matrices(u32* to, u32 from) {
    const u32 warp = current / 32 * 32, lane = current % 32;
    lent[current].address = from;
    __syncwarp();
    for (u32 m = 0; m < 4; ++m) {
        u32 banks = 0;
        for (u32 row = 0; row < 8; ++row) banks |= 1u << lent[warp + 8 * m + row].address / 16 % 8;
        if (banks != 0xFF) wrong("rows of a matrix that share banks");
        std::memcpy(to + m, shared(lent[warp + 8 * m + lane / 4].address) + lane % 4 * 4, 4);
    }
    __syncwarp();
}

// mma.m16n8k16. Element i of a lane's eight of a: row lane / 4, eight more for i of 2, 3, 6, 7; column 2 (lane % 4) +
// i % 2, eight more from i = 4 on. Of its four of b: row 2 (lane % 4) + i % 2, eight more from i = 2 on; column
// lane / 4.
inline void multiply_add(float* sums, const u32* a, u32 b0, u32 b1) {
    const u32 warp = current / 32 * 32, lane = current % 32;
    std::memcpy(lent[current].a, a, 16);
    lent[current].b[0] = b0;
    lent[current].b[1] = b1;
    __syncwarp();
    const auto half = [](u32 word, u32 high) { return widen(high ? word >> 16 : word & 0xFFFF); };
    for (u32 i = 0; i < 4; ++i) {
        const u32 row = lane / 4 + i / 2 * 8, column = 2 * (lane % 4) + i % 2;
        float sum = 0;
        for (u32 k = 0; k < 16; ++k) {
            const Lent &of_row = lent[warp + row % 8 * 4 + k % 8 / 2], &of_column = lent[warp + column * 4 + k % 8 / 2];
            sum += half(of_row.a[row / 8 + k / 8 * 2], k % 2) * half(of_column.b[k / 8], k % 2);
        }
        sums[i] += sum;
    }
    __syncwarp();
}

// ---- A block from its beginning to its end

// Lets a warp run until it ends or stands at the block's barrier.
inline void run_warp(u32 first) {
    for (;;) {
        u32 at_block = 0, at_warp = 0, ended = 0;
        for (current = first; current < first + 32; ++current) {
            Fibre& fibre = fibres[current];
            if (!fibre.ended && fibre.wait == Wait::Nothing) swapcontext(&outside, &fibre.context);
            ended += fibre.ended;
            at_block += !fibre.ended && fibre.wait == Wait::Block;
            at_warp += !fibre.ended && fibre.wait == Wait::Warp;
        }
        if (ended == 32 || at_block == 32) return;
        if (at_warp != 32) wrong("a warp whose threads part");
        for (u32 i = first; i < first + 32; ++i) fibres[i].wait = Wait::Nothing;
    }
}

inline void run_block(u32 block, u32 blocks) {
    static std::mt19937 random(1);
    blockIdx.x = block;
    gridDim.x = blocks;
    std::memset(memory, 0xFF, sizeof memory);
    for (Fibre& fibre : fibres) {
        fibre.ended = false;
        fibre.wait = Wait::Nothing;
        getcontext(&fibre.context);
        fibre.context.uc_stack.ss_sp = fibre.stack.data();
        fibre.context.uc_stack.ss_size = fibre.stack.size();
        fibre.context.uc_link = &outside;
        makecontext(&fibre.context, [] { kernel(); fibres[current].ended = true; }, 0);
    }
    for (u32 ended = 0; ended < THREADS;) {
        // Warps come to a barrier in any order.
        std::vector<u32> warps;
        for (u32 first = 0; first < THREADS; first += 32) warps.push_back(first);
        std::shuffle(warps.begin(), warps.end(), random);
        for (u32 first : warps) run_warp(first);
        ended = std::count_if(fibres, fibres + THREADS, [](const Fibre& fibre) { return fibre.ended; });
        if (ended != 0 && ended != THREADS) wrong("a block whose warps part");
        for (Fibre& fibre : fibres) fibre.wait = Wait::Nothing;
    }
    for (auto& mine : groups) {
        for (const auto& group : mine) {
            if (!group.empty()) wrong("copies that nobody awaited");
        }
        mine.clear();
    }
}
