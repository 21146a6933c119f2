//! Rate of the experts' grouped products in the shapes of real models: `grouped_speed [mma] [TOKENS...]`; `mma` is the
//! kernel that every GPU has, where this one has a faster.
//!
//! Loads are uneven, from half to twice their geometric mean; values are random, since zeros need less power and run
//! faster. Gate and up of gathered rows stand beside copying the rows together first. A rate counts 2 R N K operations,
//! and is the median of 15 times after 3 runs to warm up, by CUDA events.

use std::error::Error;

use half::bf16;
use moetrace_cuda::{
    Buffer, Compiler, CudaError, Device, GatherRows, GatheredRows, GroupedKernel, GroupedProduct,
    GroupedRows, Libraries,
};

const REPEATS: usize = 15;
const WARM_UP: usize = 3;

/// Name, D, F, experts, experts of a token.
const MODELS: [(&str, usize, usize, usize, usize); 6] = [
    ("DeepSeek-MoE-16B", 2048, 1408, 64, 6),
    ("Qwen1.5-MoE-A2.7B", 2048, 1408, 60, 4),
    ("Qwen1.5-MoE shared", 2048, 5632, 1, 1),
    ("OLMoE", 2048, 1024, 64, 8),
    ("Qwen3-30B-A3B", 2048, 768, 128, 8),
    ("Mixtral 8x7B", 4096, 14_336, 8, 2),
];

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1).peekable();
    let portable = arguments.next_if(|first| first == "mma").is_some();
    let mut tokens = arguments.map(|one| one.parse()).collect::<Result<Vec<usize>, _>>()?;
    if tokens.is_empty() {
        tokens = vec![4096, 10_240, 40_960];
    }
    let libraries = Libraries::new(&[], &[]);
    let device = Device::open(libraries.driver()?, 0)?;
    let compiler = Compiler::new(libraries.nvrtc()?, None);
    let product = if portable {
        GroupedProduct::<bf16>::with_kernel(&device, &compiler, GroupedKernel::Mma)?
    } else {
        GroupedProduct::<bf16>::new(&device, &compiler)?
    };
    let gather = GatherRows::<bf16>::new(&device, &compiler)?;
    let (name, kernel) = (device.name(), product.kernel());
    println!("{name}, {kernel:?}: TFLOP/s of gate and up, with the rows' copying, gathered; of down");
    let mut random = Random(1);
    for (name, d, f, experts, chosen) in MODELS {
        let gate_up = random.elements(&device, experts * 2 * f * d)?;
        let down = random.elements(&device, experts * d * f)?;
        for tokens in &tokens {
            let r = tokens * chosen;
            let hidden = random.elements(&device, tokens * d)?;
            let offsets = random.offsets(experts, r);
            let sources = device.upload(&random.sources(&offsets, *tokens))?;
            let offsets = device.upload(&offsets)?;
            let mut rows = device.zeros::<bf16>(r * d)?;
            gather.run(hidden.all(), d, sources.all(), &mut rows.all_mut())?;
            let mut activated = random.elements(&device, r * f)?;
            let mut out = device.zeros::<bf16>(r * d)?;
            let grouped = GroupedRows { rows: rows.all(), depth: d, offsets: offsets.all() };
            let up =
                seconds(&device, || product.gate_up(&grouped, gate_up.all(), f, &mut activated.all_mut()))?;
            let with_copy = seconds(&device, || {
                gather.run(hidden.all(), d, sources.all(), &mut rows.all_mut())?;
                let grouped = GroupedRows { rows: rows.all(), depth: d, offsets: offsets.all() };
                product.gate_up(&grouped, gate_up.all(), f, &mut activated.all_mut())
            })?;
            let from = GatheredRows {
                tokens: hidden.all(),
                depth: d,
                sources: sources.all(),
                offsets: offsets.all(),
            };
            let gathered = seconds(&device, || {
                product.gate_up_gathered(&from, gate_up.all(), f, &mut activated.all_mut())
            })?;
            let grouped = GroupedRows { rows: activated.all(), depth: f, offsets: offsets.all() };
            let back = seconds(&device, || product.down(&grouped, down.all(), d, &mut out.all_mut()))?;
            let rate = |matrices: usize, seconds: f64| (2 * matrices * r * d * f) as f64 / seconds / 1e12;
            let [up, with_copy, gathered] = [up, with_copy, gathered].map(|seconds| rate(2, seconds));
            let back = rate(1, back);
            println!("{name:<20}{tokens:>7} tokens {up:>6.0} {with_copy:>6.0} {gathered:>6.0}; {back:>6.0}");
        }
    }
    Ok(())
}

fn seconds(device: &Device, mut queue: impl FnMut() -> Result<(), CudaError>) -> Result<f64, CudaError> {
    let mut times = Vec::new();
    for _ in 0..WARM_UP + REPEATS {
        times.push(device.time(&mut queue)?);
    }
    let measured = &mut times[WARM_UP..];
    measured.sort_by(f32::total_cmp);
    Ok(f64::from(measured[REPEATS / 2]) / 1e3)
}

struct Random(u64);

impl Random {
    /// From 0 to 1.
    fn uniform(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 24) as f32
    }

    /// From -0.05 to 0.05; they repeat after a prime number of elements, which no row's width divides.
    fn elements(&mut self, device: &Device, count: usize) -> Result<Buffer<bf16>, CudaError> {
        let some: Vec<bf16> =
            (0..count.min(4_194_301)).map(|_| bf16::from_f32(self.uniform() / 10.0 - 0.05)).collect();
        let values: Vec<bf16> = some.iter().copied().cycle().take(count).collect();
        device.upload(&values)
    }

    /// Tokens of every expert, ascending as grouping leaves them.
    fn sources(&mut self, offsets: &[u32], tokens: usize) -> Vec<u32> {
        let mut sources: Vec<u32> = Vec::new();
        for ends in offsets.windows(2) {
            let first = sources.len();
            sources.extend((ends[0]..ends[1]).map(|_| (self.uniform() * tokens as f32) as u32));
            sources[first..].sort_unstable();
        }
        sources
    }

    fn offsets(&mut self, experts: usize, rows: usize) -> Vec<u32> {
        let loads: Vec<f32> = (0..experts).map(|_| (2.0 * self.uniform() - 1.0).exp2()).collect();
        let all: f32 = loads.iter().sum();
        let mut offsets = vec![0];
        let mut sum = 0.0;
        for load in loads {
            sum += load;
            offsets.push((rows as f32 * sum / all) as u32);
        }
        offsets[experts] = rows as u32;
        offsets
    }
}
