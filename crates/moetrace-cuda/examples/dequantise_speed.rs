//! How fast 4-bit weights are restored, next to a copy of as many bytes on the same device.
//!
//! `dequantise_speed [ELEMENTS]`: a multiple of 64; the default is the gate and up projections of the 64 experts of
//! one DeepSeek-MoE-16B layer. Each line is a median of 20 after 3 runs to warm up, timed with CUDA events; bytes read
//! and written are counted. `CUDA_HOME` names a toolkit, if it is not where toolkits usually are.

use std::error::Error;
use std::path::PathBuf;

use half::{bf16, f16};
use moetrace_cuda::{
    Compiler, CudaError, Device, Element, Libraries, Nf4Dequantise, Nf4Scales, Nf4Tables, Nf4Weights,
};
use moetrace_nf4::{BlockSize, CODE_VALUES, DYNAMIC_MAP};

const REPEATS: usize = 20;
const WARM_UP: usize = 3;
const NESTED_BLOCK: usize = 256;

fn main() -> Result<(), Box<dyn Error>> {
    let elements: usize =
        std::env::args().nth(1).map_or(Ok(64 * 2 * 1408 * 2048), |number| number.parse())?;
    let toolkits: Vec<PathBuf> = std::env::var_os("CUDA_HOME").map(PathBuf::from).into_iter().collect();
    let libraries = Libraries::new(&toolkits, &[]);
    let device = Device::open(libraries.driver()?, 0)?;
    let compiler = Compiler::new(libraries.nvrtc()?, None);
    let (major, minor) = device.capability();
    println!("{} ({major}.{minor}), {elements} elements", device.name());
    let copy = copy_speed(&device, elements)?;
    println!("copy                {copy:>7.0} GB/s");
    measure::<bf16>(&device, &compiler, elements, copy)?;
    measure::<f16>(&device, &compiler, elements, copy)?;
    Ok(())
}

/// A copy that moves as many bytes as restoring does.
fn copy_speed(device: &Device, elements: usize) -> Result<f64, CudaError> {
    let bytes = moved(elements, true) / 2;
    let from = device.zeros::<u8>(bytes)?;
    let mut to = device.zeros::<u8>(bytes)?;
    let seconds = median(|| device.time(|| device.copy(from.all(), &mut to.all_mut())))?;
    Ok(2.0 * bytes as f64 / seconds / 1e9)
}

fn measure<T: Element>(
    device: &Device,
    compiler: &Compiler,
    elements: usize,
    copy: f64,
) -> Result<(), CudaError> {
    let kernel = Nf4Dequantise::<T>::new(device, compiler)?;
    let blocks = elements / 64;
    let random: Vec<u8> = (0..elements / 2).map(|i| (i.wrapping_mul(0x9E37_79B9) >> 13) as u8).collect();
    let codes = device.upload(&random)?;
    let scale_codes = device.upload(&random[..blocks])?;
    let nested = device.upload(&vec![0.02f32; blocks.div_ceil(NESTED_BLOCK)])?;
    let absmax = device.upload(&vec![0.02f32; blocks])?;
    let tables = Nf4Tables::new(device, &CODE_VALUES, &DYNAMIC_MAP)?;
    let mut out = device.zeros::<T>(elements)?;
    let double = Nf4Scales::Double {
        codes: scale_codes.all(),
        nested: nested.all(),
        block: BlockSize::new(NESTED_BLOCK).unwrap_or_default(),
        offset: 0.03,
    };
    for (name, scales) in [("double", double), ("plain", Nf4Scales::Plain(absmax.all()))] {
        let (block, codes) = (BlockSize::DEFAULT, codes.all());
        let weights = Nf4Weights { elements, block, codes, scales, tables: &tables };
        let seconds = median(|| device.time(|| kernel.run(&weights, &mut out.all_mut())))?;
        let speed = moved(elements, name == "double") as f64 / seconds / 1e9;
        let (element, share, time) = (T::NAME, 100.0 * speed / copy, seconds * 1e3);
        println!("nf4 to {element:<5}{name:<8}{speed:>7.0} GB/s, {share:.1} % of the copy, {time:.3} ms");
    }
    Ok(())
}

/// Bytes read and written to restore 16-bit elements in blocks of 64.
fn moved(elements: usize, double: bool) -> usize {
    let blocks = elements / 64;
    let scales = if double { blocks + 4 * blocks.div_ceil(NESTED_BLOCK) } else { 4 * blocks };
    elements / 2 + scales + 2 * elements
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
