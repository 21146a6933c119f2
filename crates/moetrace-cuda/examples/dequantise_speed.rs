//! How fast stacks of 4-bit tensors are restored, next to a copy of as many bytes on the same device.
//!
//! `dequantise_speed [TENSORS [ELEMENTS]]`: ELEMENTS of each tensor, a multiple of 64; the default is the gate, up and
//! down projections of the 64 experts of one DeepSeek-MoE-16B layer, 192 of 1408 x 2048. Each line is a median of 20
//! after 3 runs to warm up, timed with CUDA events; bytes read and written are counted. `CUDA_HOME` names a toolkit,
//! if it is not where toolkits usually are.

use std::error::Error;
use std::path::PathBuf;

use half::{bf16, f16};
use moetrace_cuda::{
    Compiler, CudaError, Device, Element, Libraries, Nf4Dequantise, Nf4Scales, Nf4Stack, Nf4Tables,
};
use moetrace_nf4::{BlockSize, CODE_VALUES, DYNAMIC_MAP};

const REPEATS: usize = 20;
const WARM_UP: usize = 3;
const NESTED_BLOCK: usize = 256;

/// Tensors, and elements of each.
#[derive(Clone, Copy)]
struct Shape {
    tensors: usize,
    elements: usize,
}

impl Shape {
    fn all(self) -> usize {
        self.tensors * self.elements
    }

    fn blocks(self) -> usize {
        self.elements / 64
    }

    fn nested_blocks(self) -> usize {
        self.blocks().div_ceil(NESTED_BLOCK)
    }

    /// Bytes read and written to restore 16-bit elements in blocks of 64.
    fn moved(self, double: bool) -> usize {
        let scales = if double { self.blocks() + 4 * self.nested_blocks() + 4 } else { 4 * self.blocks() };
        self.all() / 2 + self.tensors * scales + 2 * self.all()
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let number = |place: usize, default: usize| {
        std::env::args().nth(place).map_or(Ok(default), |number| number.parse())
    };
    let shape = Shape { tensors: number(1, 3 * 64)?, elements: number(2, 1408 * 2048)? };
    let toolkits: Vec<PathBuf> = std::env::var_os("CUDA_HOME").map(PathBuf::from).into_iter().collect();
    let libraries = Libraries::new(&toolkits, &[]);
    let device = Device::open(libraries.driver()?, 0)?;
    let compiler = Compiler::new(libraries.nvrtc()?, None);
    let (major, minor) = device.capability();
    let Shape { tensors, elements } = shape;
    println!("{} ({major}.{minor}), {tensors} tensors of {elements} elements", device.name());
    let copy = copy_speed(&device, shape)?;
    println!("copy                {copy:>7.0} GB/s");
    measure::<bf16>(&device, &compiler, shape, copy)?;
    measure::<f16>(&device, &compiler, shape, copy)?;
    Ok(())
}

/// A copy that moves as many bytes as restoring does.
fn copy_speed(device: &Device, shape: Shape) -> Result<f64, CudaError> {
    let bytes = shape.moved(true) / 2;
    let from = device.zeros::<u8>(bytes)?;
    let mut to = device.zeros::<u8>(bytes)?;
    let seconds = median(|| device.time(|| device.copy(from.all(), &mut to.all_mut())))?;
    Ok(2.0 * bytes as f64 / seconds / 1e9)
}

fn measure<T: Element>(
    device: &Device,
    compiler: &Compiler,
    shape: Shape,
    copy: f64,
) -> Result<(), CudaError> {
    let kernel = Nf4Dequantise::<T>::new(device, compiler)?;
    let Shape { tensors, elements } = shape;
    let blocks = tensors * shape.blocks();
    let random: Vec<u8> = (0..shape.all() / 2).map(|i| (i.wrapping_mul(0x9E37_79B9) >> 13) as u8).collect();
    let codes = device.upload(&random)?;
    let scale_codes = device.upload(&random[..blocks])?;
    let nested = device.upload(&vec![0.02f32; tensors * shape.nested_blocks()])?;
    let offsets = device.upload(&vec![0.03f32; tensors])?;
    let absmax = device.upload(&vec![0.02f32; blocks])?;
    let tables = Nf4Tables::new(device, &CODE_VALUES, &DYNAMIC_MAP)?;
    let mut out = device.zeros::<T>(shape.all())?;
    let double = Nf4Scales::Double {
        codes: scale_codes.all(),
        nested: nested.all(),
        offsets: offsets.all(),
        block: BlockSize::new(NESTED_BLOCK).unwrap_or_default(),
    };
    for (name, scales) in [("double", double), ("plain", Nf4Scales::Plain(absmax.all()))] {
        let (block, codes) = (BlockSize::DEFAULT, codes.all());
        let stack = Nf4Stack { tensors, elements, block, codes, scales, tables: &tables };
        let seconds = median(|| device.time(|| kernel.run(&stack, &mut out.all_mut())))?;
        let speed = shape.moved(name == "double") as f64 / seconds / 1e9;
        let (element, share, time) = (T::NAME, 100.0 * speed / copy, seconds * 1e3);
        println!("nf4 to {element:<5}{name:<8}{speed:>7.0} GB/s, {share:.1} % of the copy, {time:.3} ms");
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
