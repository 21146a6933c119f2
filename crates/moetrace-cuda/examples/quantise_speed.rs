//! How fast elements become 4-bit weights, next to a copy on the same device.
//!
//! `quantise_speed [TENSORS]`: matrices `[1408, 2048]`, as many as one DeepSeek-MoE-16B layer has in its gate and up
//! projections, or one as it is when weights are loaded matrix by matrix. Each line is a median of 20 after 3 runs to
//! warm up, timed with CUDA events; speeds count the elements read. `CUDA_HOME` names a toolkit, if it is not where
//! toolkits usually are.

use std::error::Error;
use std::path::PathBuf;

use half::{bf16, f16};
use moetrace_cuda::{
    Compiler, CudaError, Device, Element, Libraries, Nf4Double, Nf4DoubleScales, Nf4Quantise, Nf4Quantised,
    Nf4Source,
};
use moetrace_nf4::{BlockSize, DYNAMIC_MAP};

const REPEATS: usize = 20;
const WARM_UP: usize = 3;
const ELEMENTS: usize = 1408 * 2048;

fn main() -> Result<(), Box<dyn Error>> {
    let most: usize = std::env::args().nth(1).map_or(Ok(128), |number| number.parse())?;
    let toolkits: Vec<PathBuf> = std::env::var_os("CUDA_HOME").map(PathBuf::from).into_iter().collect();
    let libraries = Libraries::new(&toolkits, &[]);
    let device = Device::open(libraries.driver()?, 0)?;
    let compiler = Compiler::new(libraries.nvrtc()?, None);
    println!("{}, matrices of {ELEMENTS} elements", device.name());
    for tensors in [1, most] {
        let from = device.zeros::<bf16>(tensors * ELEMENTS)?;
        let mut to = device.zeros::<bf16>(tensors * ELEMENTS)?;
        let seconds = median(|| device.time(|| device.copy(from.all(), &mut to.all_mut())))?;
        let speed = (tensors * ELEMENTS * 2) as f64 / seconds / 1e9;
        println!("{tensors} copied as bf16: {speed:.0} GB/s read and as many written");
        measure::<bf16>(&device, &compiler, tensors, &[32, 64, 256, 512, 4096])?;
        measure::<f16>(&device, &compiler, tensors, &[64])?;
        measure::<f32>(&device, &compiler, tensors, &[64, 4096])?;
    }
    Ok(())
}

fn measure<T: Element>(
    device: &Device,
    compiler: &Compiler,
    tensors: usize,
    blocks: &[usize],
) -> Result<(), Box<dyn Error>> {
    let quantise = Nf4Quantise::<T>::new(device, compiler)?;
    let double = Nf4Double::new(device, compiler, &DYNAMIC_MAP)?;
    let random = |i: usize| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f32 / 16_777_216.0;
    // The sum of four is bell-shaped enough.
    let matrix: Vec<T> =
        (0..ELEMENTS).map(|i| T::narrow((4 * i..4 * i + 4).map(random).sum::<f32>() * 0.03 - 0.06)).collect();
    let mut values = device.zeros::<T>(tensors * ELEMENTS)?;
    let one = device.upload(&matrix)?;
    for tensor in 0..tensors {
        device.copy(one.all(), &mut values.part_mut(tensor * ELEMENTS..(tensor + 1) * ELEMENTS)?)?;
    }
    for &size in blocks {
        let block = BlockSize::new(size)?;
        let blocks = block.blocks(ELEMENTS);
        let nested = Nf4Double::nested_blocks(blocks);
        let mut codes = device.zeros(tensors * ELEMENTS / 2)?;
        let mut absmax = device.zeros(tensors * blocks)?;
        let mut refused = device.zeros(tensors)?;
        let mut scale_codes = device.zeros(tensors * blocks)?;
        let mut nested = device.zeros(tensors * nested)?;
        let mut offsets = device.zeros(tensors)?;
        let from = Nf4Source { tensors, elements: ELEMENTS, block, values: values.all() };
        let mut to =
            Nf4Quantised { codes: codes.all_mut(), absmax: absmax.all_mut(), refused: refused.all_mut() };
        let plain = median(|| device.time(|| quantise.run(&from, &mut to)))?;
        let mut scales = Nf4DoubleScales {
            codes: scale_codes.all_mut(),
            nested: nested.all_mut(),
            offsets: offsets.all_mut(),
        };
        let doubled = median(|| device.time(|| double.run(absmax.all(), blocks, &mut scales)))?;
        let speed = (tensors * ELEMENTS * size_of::<T>()) as f64 / plain / 1e9;
        println!(
            "{tensors:>4} of {:<5}in blocks of {size:>4}: {:>8.1} us, {speed:>6.0} GB/s read; scales {:>7.1} us",
            T::NAME,
            plain * 1e6,
            doubled * 1e6
        );
    }
    Ok(())
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
