//! How fast bf16 weights become NF4 and come back, on so many threads.
//!
//! `cargo run --release -p moetrace-nf4 --example speed -- 33554432 1 10`: elements, threads, repeats. Prints one
//! line, `quantise MB/s of source, dequantise MB/s of output`, medians; `benches/peer/nf4_bitsandbytes.py` reads it.

use std::error::Error;
use std::time::Instant;

use half::bf16;
use moetrace_nf4::{ElementType, Nf4Settings, Nf4Tensor, Source};

fn main() -> Result<(), Box<dyn Error>> {
    let numbers: Vec<usize> = std::env::args().skip(1).map(|arg| arg.parse()).collect::<Result<_, _>>()?;
    let [elements, threads, repeats] = numbers[..] else {
        return Err("expected ELEMENTS THREADS REPEATS".into());
    };
    let weights = weights(elements);
    let source = Source { bytes: &weights, element: ElementType::Bf16 };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    let (mut quantise, mut dequantise) = (Vec::new(), Vec::new());
    let mut out = vec![bf16::ZERO; elements];
    for _ in 0..repeats {
        let begun = Instant::now();
        let tensor = pool.install(|| Nf4Tensor::quantise(source, &[elements], Nf4Settings::default()))?;
        quantise.push(begun.elapsed().as_secs_f64());
        let begun = Instant::now();
        pool.install(|| tensor.dequantise_parallel(&mut out))?;
        dequantise.push(begun.elapsed().as_secs_f64());
    }
    let megabytes = weights.len() as f64 / 1e6;
    println!("{:.0} {:.0}", megabytes / median(&mut quantise), megabytes / median(&mut dequantise));
    Ok(())
}

/// Bell-shaped values from a counter, as weights are.
fn weights(elements: usize) -> Vec<u8> {
    let value = |i: usize| {
        let mixed = (i as u64 ^ (i as u64) << 21).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let sum: u64 = (0..4).map(|part| (mixed >> (16 * part)) & 0xFFFF).sum();
        (sum as f32 / 65536.0 - 2.0) * 0.02
    };
    (0..elements).flat_map(|i| bf16::from_f32(value(i)).to_le_bytes()).collect()
}

fn median(seconds: &mut [f64]) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}
