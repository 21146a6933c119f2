//! How fast attention is.
//!
//! `attention_speed [SPANS LENGTH HEADS KV_HEADS WIDTH]`: one shape, or else several. Each line is a median of 20 after
//! 3 runs to warm up, timed with CUDA events, over one product's rows of queries, keys and values; products that causal
//! attention needs are counted, half of the square and the diagonal. `CUDA_HOME` names a toolkit, if it is not where
//! toolkits usually are.

use std::error::Error;
use std::path::PathBuf;

use half::{bf16, f16};
use moetrace_cuda::{
    Architecture, Attention, AttentionHeads, AttentionKernel, AttentionRows, Compiler, CudaError, Device,
    Element, Libraries, Sequences,
};

const REPEATS: usize = 20;
const WARM_UP: usize = 3;
/// Spans, their length, heads, heads of keys, width.
const SHAPES: [[usize; 5]; 6] = [
    [80, 512, 16, 16, 128],
    [4, 4096, 16, 16, 128],
    [8, 512, 16, 16, 128],
    [80, 512, 16, 4, 128],
    [80, 512, 16, 16, 64],
    [4, 4096, 16, 16, 64],
];

fn main() -> Result<(), Box<dyn Error>> {
    let numbers = std::env::args().skip(1).map(|number| number.parse()).collect::<Result<Vec<usize>, _>>()?;
    let given = <[usize; 5]>::try_from(numbers).ok();
    let toolkits: Vec<PathBuf> = std::env::var_os("CUDA_HOME").map(PathBuf::from).into_iter().collect();
    let libraries = Libraries::new(&toolkits, &[]);
    let device = Device::open(libraries.driver()?, 0)?;
    let compiler = Compiler::new(libraries.nvrtc()?, None);
    let (major, minor) = device.capability();
    println!("{} ({major}.{minor})", device.name());
    for shape in given.map_or(SHAPES.to_vec(), |given| vec![given]) {
        if device.architecture() == Architecture::Sm90a {
            measure::<bf16>(&device, &compiler, shape, AttentionKernel::Wgmma)?;
            measure::<f16>(&device, &compiler, shape, AttentionKernel::Wgmma)?;
        }
        measure::<bf16>(&device, &compiler, shape, AttentionKernel::Mma)?;
        measure::<f16>(&device, &compiler, shape, AttentionKernel::Mma)?;
    }
    measure::<bf16>(&device, &compiler, [1, 4097, 16, 16, 128], AttentionKernel::Plain)?;
    measure::<f32>(&device, &compiler, [1, 4097, 16, 16, 256], AttentionKernel::Plain)?;
    Ok(())
}

fn measure<T: Element + Value>(
    device: &Device,
    compiler: &Compiler,
    [spans, length, heads, kv_heads, width]: [usize; 5],
    kernel: AttentionKernel,
) -> Result<(), CudaError> {
    let shape = AttentionHeads { heads, kv_heads, width };
    let attention = Attention::with_kernel(device, compiler, shape, kernel)?;
    let (n, stride) = (spans * length, (heads + 2 * kv_heads) * width);
    let mut sequences = Sequences::new(device, n, spans)?;
    sequences.set(device, &vec![length; spans])?;
    let on = device.upload(&random::<T>(n * stride))?;
    let mut out = device.zeros::<T>(n * heads * width)?;
    let keys = heads * width;
    let values = keys + kv_heads * width;
    let rows = AttentionRows {
        queries: on.all(),
        keys: on.part(keys..on.len())?,
        values: on.part(values..on.len())?,
        stride,
    };
    let seconds = median(|| device.time(|| attention.run(&rows, &sequences, &mut out.all_mut())))?;
    let pairs = spans * length * (length + 1) / 2;
    let speed = (4 * heads * width * pairs) as f64 / seconds / 1e12;
    let (name, element, time) = (format!("{kernel:?}"), T::NAME, seconds * 1e3);
    let shape = format!("{spans} x {length}, {heads}/{kv_heads} heads of {width}");
    println!("{name:<6}{element:<5}{shape:<34}{time:>9.3} ms {speed:>7.1} TFLOP/s");
    Ok(())
}

/// Elements from f32.
trait Value {
    fn of(value: f32) -> Self;
}

impl Value for bf16 {
    fn of(value: f32) -> Self {
        Self::from_f32(value)
    }
}

impl Value for f16 {
    fn of(value: f32) -> Self {
        Self::from_f32(value)
    }
}

impl Value for f32 {
    fn of(value: f32) -> Self {
        value
    }
}

/// Even between -2 and 2, by xorshift.
fn random<T: Value>(count: usize) -> Vec<T> {
    let mut state = 0x9E37_79B9u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        T::of(state as f32 / (1u32 << 30) as f32 - 2.0)
    };
    (0..count).map(|_| next()).collect()
}

/// Seconds.
fn median(mut milliseconds: impl FnMut() -> Result<f32, CudaError>) -> Result<f64, CudaError> {
    for _ in 0..WARM_UP {
        milliseconds()?;
    }
    let mut times = (0..REPEATS).map(|_| milliseconds()).collect::<Result<Vec<f32>, _>>()?;
    times.sort_by(f32::total_cmp);
    Ok(f64::from(times[REPEATS / 2]) / 1e3)
}
