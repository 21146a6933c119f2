// kernels/grouped_product_mma.cu on the CPU, against sums in f64: `cargo xtask emulate` compiles and runs it for each
// GATED and GATHERED. The constants are those of src/operation/grouped_product/kernel.rs, but for ROW_TILES, which is
// small here so that an expert has several groups of tiles.
#define THREADS 128
#define BLOCKS 2
#define STAGES 3
#define STAGE 16384
#define ROW_TILES 2
#include "block.hpp"

#define NOTHING 0xFFFFFFFF
struct Range {
    u32 begin, length;
};
inline Range range_of(const u32* offsets, u32 expert, u32 rows) {
    const u32 end = min(offsets[expert + 1], rows), begin = min(offsets[expert], end);
    return Range{begin, end - begin};
}

#include "../kernels/grouped_product_mma.cu"

static_assert(STAGE == STAGE_BYTES);

typedef std::vector<u32> Counts;
static const u32 TOKENS = 333, MATRICES = GATED ? 2 : 1;
static std::mt19937 bits(1);

// Random elements at a multiple of 16 bytes, which the kernel may read.
struct Matrix {
    std::vector<Quad> quads;

    Matrix(size_t count, float deviation) : quads(count / 8) {
        std::normal_distribution<float> normal(0, deviation);
        for (size_t i = 0; i < count; ++i) data()[i] = narrow(normal(bits));
        readable.push_back({(const u8*)quads.data(), 2 * count});
    }
    element* data() { return (element*)quads.data(); }
};

struct Case {
    Counts counts;
    u32 depth, width, blocks;
};

static double dot(const element* a, const element* b, u32 depth) {
    double sum = 0;
    for (u32 k = 0; k < depth; ++k) sum += (double)widen(a[k]) * widen(b[k]);
    return sum;
}

// How many results were compared.
static size_t check(const Case& of) {
    const u32 depth = of.depth, width = of.width, experts = of.counts.size();
    Counts offsets = {0};
    for (u32 count : of.counts) offsets.push_back(offsets.back() + count);
    const u32 rows = offsets.back(), line_count = GATHERED ? TOKENS : rows;
    readable.clear();
    Matrix lines((size_t)line_count * depth, 1);
    Matrix weights((size_t)experts * MATRICES * width * depth, 1 / std::sqrt((float)depth));
    Counts sources(rows);
    for (u32 r = 0; r < rows; ++r) sources[r] = r == 0 ? TOKENS : r == 70 ? NOTHING : bits() % TOKENS;
    std::vector<Quad> out((size_t)rows * width / 8);
    results = (element*)out.data();
    const auto multiply = [&](const Counts& offsets) {
        written.assign((size_t)rows * width, 0);
        kernel = [&] {
            grouped_product_mma(lines.data(), line_count, GATHERED ? sources.data() : nullptr, weights.data(),
                                offsets.data(), offsets.size() - 1, rows, depth, width, results);
        };
        for (u32 block = 0; block < of.blocks; ++block) run_block(block, of.blocks);
    };
    // Offsets that make no sense: nothing is read or written elsewhere.
    for (Counts wrong : {Counts{250, 100, NOTHING, 7}, Counts{NOTHING, NOTHING, NOTHING}, Counts{0, 9, 100'000}}) {
        wrong.resize(min(wrong.size(), offsets.size()));
        multiply(wrong);
    }
    multiply(offsets);
    if (std::any_of(written.begin(), written.end(), [](u32 times) { return times != 1; })) wrong("results written");
    for (u32 expert = 0; expert < experts; ++expert) {
        const element* own = weights.data() + (size_t)expert * MATRICES * width * depth;
        for (u32 r = offsets[expert]; r < offsets[expert + 1]; ++r) {
            const u32 line = GATHERED ? sources[r] : r;
            for (u32 n = 0; n < width; ++n) {
                const auto product = [&](size_t row) {
                    return line < line_count ? dot(lines.data() + (size_t)line * depth, own + row * depth, depth) : 0;
                };
                const double first = product(n);
                const double expected = GATED ? first / (1 + std::exp(-first)) * product(width + n) : first;
                // Half a unit of bf16 and some for sums in f32; sums that cancel.
                const double off = std::abs(widen(results[(size_t)r * width + n]) - expected);
                if (!(off <= 5e-3 * std::abs(expected) + 1e-5)) wrong("a result");
            }
        }
    }
    return (size_t)rows * width;
}

int main() {
    // Rows of experts around the sides of tiles; more tiles than ROW_TILES; depths and widths around 16, 32, 64, 128.
    const Counts sides = {0, 1, 64, 0, 65, 128, 129, 0}, many = {640, 1, 1, 63}, few = {0, 0, 7, 0};
    const Case cases[] = {{sides, 8, 8, 3},   {sides, 64, 72, 7},   {sides, 200, 136, 5}, {many, 96, 328, 4},
                          {many, 32, 200, 1}, {few, 104, 128, 200}, {{1}, 16, 64, 2},     {{}, 8, 8, 1}};
    size_t results = 0;
    for (const Case& one : cases) results += check(one);
    std::printf("grouped_product_mma, gated %d, gathered %d: %zu results\n", GATED, GATHERED, results);
}
