//! Rate of products in the shapes of DeepSeek-MoE-16B: `product_speed [ROWS]`.

use std::error::Error;

use half::bf16;
use moetrace_cuda::{Compiler, Device, Libraries, Product, ProductLibrary, ProductShape};

/// Repeats, of which the middle one counts.
const REPEATS: usize = 15;

fn main() -> Result<(), Box<dyn Error>> {
    let rows: usize = std::env::args().nth(1).map_or(Ok(40_960), |rows| rows.parse())?;
    let libraries = Libraries::new(&[], &[]);
    let device = Device::open(libraries.driver()?, 0)?;
    let compiler = Compiler::new(libraries.nvrtc()?, None);
    let library = ProductLibrary::open(&device, libraries.cublaslt()?)?;
    let expert_rows = rows * 6 / 64;
    let shapes = [
        ("q, k, v", rows, 6144, 2048, 1),
        ("o", rows, 2048, 2048, 1),
        ("shared gate, up", rows, 5632, 2048, 1),
        ("shared down", rows, 2048, 2816, 1),
        ("dense gate, up", rows, 21_888, 2048, 1),
        ("64 experts gate, up", expert_rows, 2816, 2048, 64),
        ("64 experts down", expert_rows, 2048, 1408, 64),
    ];
    let mut state = 1u64;
    let mut random = |count: usize| -> Vec<bf16> {
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            bf16::from_f32((state >> 40) as f32 / (1 << 23) as f32 - 1.0)
        };
        (0..count).map(|_| next()).collect()
    };
    for (name, m, n, k, times) in shapes {
        let usual_rows = if times > 1 { 960 } else { 40_960 };
        let shape = ProductShape { outputs: n, inputs: k, biased: false, usual_rows };
        let product = Product::<bf16>::new(&device, &compiler, &library, shape)?;
        let (x, w) = (device.upload(&random(m * k * times))?, device.upload(&random(n * k))?);
        let mut out = device.zeros::<bf16>(m * n * times)?;
        let mut taken = Vec::new();
        for _ in 0..REPEATS {
            taken.push(device.time(|| {
                for one in 0..times {
                    let x = x.part(one * m * k..(one + 1) * m * k)?;
                    product.run(x, w.all(), None, &mut out.part_mut(one * m * n..(one + 1) * m * n)?)?;
                }
                Ok(())
            })?);
        }
        taken.sort_by(f32::total_cmp);
        let (ms, flops) = (taken[REPEATS / 2], 2.0 * (m * n * k * times) as f64);
        println!(
            "{name}: {m} x {n} x {k}: {ms:.3} ms, {:.0} TFLOP/s, {}",
            flops / f64::from(ms) / 1e9,
            product.way()
        );
    }
    Ok(())
}
