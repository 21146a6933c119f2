//! Operations that move memory and compute little: their share is that of a copy of as many bytes.

use benches::Random;
use criterion::Criterion;
use half::bf16;
use moetrace_cuda::{
    GatherRows, HeadRows, Nf4Dequantise, Nf4Quantise, Nf4Quantised, Nf4Scales, Nf4Source, Nf4Stack,
    Nf4Tables, RmsNorm, Rotary, RotaryTables, SiluMultiply,
};
use moetrace_nf4::{BlockSize, CODE_VALUES, DYNAMIC_MAP};

use crate::place::{Place, Work};
use crate::shapes::{EXPERT, EXPERTS, HEAD, HEADS, HIDDEN, SHARED, SPAN, TOKENS, VOCAB};

/// Gate, up and down of all experts of a layer.
const TENSORS: usize = 3 * EXPERTS;
const ELEMENTS: usize = EXPERT * HIDDEN;
/// Elements with a scale of their own, and scales with one.
const BLOCK: usize = 64;
const NESTED: usize = 256;

/// All experts of a layer to 4 bits and back.
pub(crate) fn four_bits(place: &Place, criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("four_bits");
    let device = &place.device;
    let blocks = ELEMENTS / BLOCK;
    let nested = blocks.div_ceil(NESTED);
    let moved = TENSORS * (ELEMENTS / 2 + blocks + 4 * nested + 4 + 2 * ELEMENTS);
    place.measure(&mut group, ("nf4_dequantise", None), Work::Bytes(moved), || {
        let kernel = Nf4Dequantise::<bf16>::new(device, &place.compiler)?;
        let mut random = Random(2);
        let words: Vec<u8> = (0..TENSORS * ELEMENTS / 16).flat_map(|_| random.bits().to_le_bytes()).collect();
        let codes = device.upload(&words)?;
        let scales = device.upload(&words[..TENSORS * blocks])?;
        let nested = device.upload(&vec![0.02f32; TENSORS * nested])?;
        let offsets = device.upload(&[0.03f32; TENSORS])?;
        let tables = Nf4Tables::new(device, &CODE_VALUES, &DYNAMIC_MAP)?;
        let mut out = device.zeros::<bf16>(TENSORS * ELEMENTS)?;
        Ok(Box::new(move || {
            let scales = Nf4Scales::Double {
                codes: scales.all(),
                nested: nested.all(),
                offsets: offsets.all(),
                block: BlockSize::new(NESTED).unwrap_or_default(),
            };
            let (block, codes, tables) = (BlockSize::DEFAULT, codes.all(), &tables);
            let stack = Nf4Stack { tensors: TENSORS, elements: ELEMENTS, block, codes, scales, tables };
            kernel.run(&stack, &mut out.all_mut())
        }))
    });
    let moved = TENSORS * (2 * ELEMENTS + ELEMENTS / 2 + 4 * blocks);
    place.measure(&mut group, ("nf4_quantise", None), Work::Bytes(moved), || {
        let kernel = Nf4Quantise::<bf16>::new(device, &place.compiler)?;
        let values = place.elements(TENSORS * ELEMENTS)?;
        let mut codes = device.zeros(TENSORS * ELEMENTS / 2)?;
        let mut absmax = device.zeros(TENSORS * blocks)?;
        let mut refused = device.zeros(TENSORS)?;
        Ok(Box::new(move || {
            let (block, values) = (BlockSize::DEFAULT, values.all());
            let from = Nf4Source { tensors: TENSORS, elements: ELEMENTS, block, values };
            let (codes, absmax, refused) = (codes.all_mut(), absmax.all_mut(), refused.all_mut());
            kernel.run(&from, &mut Nf4Quantised { codes, absmax, refused })
        }))
    });
    group.finish();
}

/// What happens to the rows of a pass between its products.
pub(crate) fn rows(place: &Place, criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rows");
    let (device, compiler) = (&place.device, &place.compiler);
    for n in TOKENS {
        let row = 2 * n * HIDDEN;
        place.measure(&mut group, ("gather", Some(n)), Work::Bytes(2 * row + 4 * n), || {
            let kernel = GatherRows::<bf16>::new(device, compiler)?;
            let table = place.elements(VOCAB * HIDDEN)?;
            let mut random = Random(3);
            let ids: Vec<u32> = (0..n).map(|_| (random.bits() % VOCAB as u64) as u32).collect();
            let ids = device.upload(&ids)?;
            let mut out = device.zeros::<bf16>(n * HIDDEN)?;
            Ok(Box::new(move || kernel.run(table.all(), HIDDEN, ids.all(), &mut out.all_mut())))
        });
        let moved = 4 * row + 2 * HIDDEN;
        place.measure(&mut group, ("rms_norm with residual", Some(n)), Work::Bytes(moved), || {
            let kernel = RmsNorm::<bf16>::new(device, compiler)?;
            let (mut x, y) = (place.elements(n * HIDDEN)?, place.elements(n * HIDDEN)?);
            let weight = place.elements(HIDDEN)?;
            let mut out = device.zeros::<bf16>(n * HIDDEN)?;
            Ok(Box::new(move || {
                let (x, out) = (&mut x.all_mut(), &mut out.all_mut());
                kernel.run_with_residual(x, y.all(), weight.all(), 1e-6, out)
            }))
        });
        rotary(place, &mut group, n);
        let moved = 2 * 3 * n * SHARED;
        place.measure(&mut group, ("silu_multiply", Some(n)), Work::Bytes(moved), || {
            let kernel = SiluMultiply::<bf16>::new(device, compiler)?;
            let both = place.elements(2 * n * SHARED)?;
            let mut out = device.zeros::<bf16>(n * SHARED)?;
            Ok(Box::new(move || kernel.run(both.all(), SHARED, &mut out.all_mut())))
        });
    }
    group.finish();
}

/// Of queries and keys where they lie, beside the values.
fn rotary(place: &Place, group: &mut crate::place::Group<'_>, n: usize) {
    let heads = 2 * HEADS;
    let stride = 3 * HEADS * HEAD;
    let tables = 2 * 2 * SPAN * (HEAD / 2);
    let moved = 2 * 2 * n * heads * HEAD + 4 * n + tables;
    place.measure(group, ("rotary", Some(n)), Work::Bytes(moved), || {
        let kernel = Rotary::<bf16>::new(&place.device, &place.compiler)?;
        let mut x = place.elements(n * stride)?;
        let positions: Vec<u32> = (0..n).map(|row| (row % SPAN) as u32).collect();
        let positions = place.device.upload(&positions)?;
        let angle = |i: usize| {
            let (position, pair) = (i / (HEAD / 2), i % (HEAD / 2));
            position as f32 / 10_000f32.powf(2.0 * pair as f32 / HEAD as f32)
        };
        let table = |of: fn(f32) -> f32| -> Vec<bf16> {
            (0..SPAN * HEAD / 2).map(|i| bf16::from_f32(of(angle(i)))).collect()
        };
        let cosines = place.device.upload(&table(f32::cos))?;
        let sines = place.device.upload(&table(f32::sin))?;
        Ok(Box::new(move || {
            let tables = RotaryTables { cosines: cosines.all(), sines: sines.all() };
            let shape = HeadRows { heads, width: HEAD, stride };
            kernel.run(&mut x.all_mut(), shape, positions.all(), tables)
        }))
    });
}
