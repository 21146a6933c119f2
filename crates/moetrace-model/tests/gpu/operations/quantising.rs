//! `nf4_quantise` against `quantise_blocks_scalar` and `nf4_double` against `DoubleQuantised`, bit by bit.

use half::{bf16, f16};
use moetrace_cuda::{
    CudaError, Device, Element, Nf4Double, Nf4DoubleScales, Nf4Quantise, Nf4Quantised, Nf4Source,
};
use moetrace_nf4::{
    BlockSize, DYNAMIC_MAP, DoubleQuantised, ElementType, Nf4Error, Source, THRESHOLDS,
    quantise_blocks_scalar,
};

use crate::support::{CANARY, Gpu, Random, Value, gpu, runs};

/// Elements of the largest tensor under a checker.
const CHECKED: usize = 310_000;

/// Around every boundary of the kernel: pairs, eights, blocks, warps, tiles of 4096, and more tiles than blocks.
const SIZES: [usize; 22] = [
    2, 4, 6, 8, 10, 30, 32, 34, 62, 64, 66, 254, 256, 258, 4094, 4096, 4098, 8190, 16_390, 100_002,
    1_000_006, 20_000_014,
];

/// What lies in outputs before, and behind them afterwards.
const POISON: u8 = 0xB7;

/// What the kernel gives for a stack of tensors.
struct Found {
    codes: Vec<u8>,
    absmax: Vec<u32>,
    refused: Vec<u64>,
}

fn kind<T: Element>() -> ElementType {
    match T::NAME {
        "bf16" => ElementType::Bf16,
        "f16" => ElementType::F16,
        _ => ElementType::F32,
    }
}

fn bytes<T: Value>(values: &[T]) -> Vec<u8> {
    values.iter().flat_map(|value| value.bits().to_le_bytes().into_iter().take(size_of::<T>())).collect()
}

/// The first `length` elements, and a look at those behind.
fn without_canary(mut values: Vec<u32>, length: usize, poison: u32) -> Vec<u32> {
    assert!(values.split_off(length).iter().all(|value| *value == poison), "written past the end");
    values
}

fn quantise<T: Value>(
    gpu: &Gpu,
    kernel: &Nf4Quantise<T>,
    values: &[T],
    tensors: usize,
    block: usize,
) -> Found {
    let device = &gpu.device;
    let block = BlockSize::new(block).unwrap();
    let elements = values.len() / tensors;
    let (half, blocks) = (values.len() / 2, tensors * block.blocks(elements));
    let resident = device.upload(values).unwrap();
    let mut codes = device.upload(&vec![POISON; half + CANARY]).unwrap();
    let poison = f32::from_bits(u32::from_le_bytes([POISON; 4]));
    let mut absmax = device.upload(&vec![poison; blocks + CANARY]).unwrap();
    let mut refused = device.upload(&vec![7u64; tensors + 1]).unwrap();
    let from = Nf4Source { tensors, elements, block, values: resident.all() };
    let mut to = Nf4Quantised {
        codes: codes.part_mut(0..half).unwrap(),
        absmax: absmax.part_mut(0..blocks).unwrap(),
        refused: refused.part_mut(0..tensors).unwrap(),
    };
    kernel.run(&from, &mut to).unwrap();
    let codes = device.download(codes.all()).unwrap().into_iter().map(u32::from).collect();
    let absmax = device.download(absmax.all()).unwrap().into_iter().map(f32::to_bits).collect();
    let mut refused = device.download(refused.all()).unwrap();
    assert_eq!(refused.pop(), Some(7));
    Found {
        codes: without_canary(codes, half, u32::from(POISON)).into_iter().map(|code| code as u8).collect(),
        absmax: without_canary(absmax, blocks, u32::from_le_bytes([POISON; 4])),
        refused,
    }
}

/// Values of weights; blocks of zeros, subnormal and huge ones; and values on, below and above thresholds.
fn values<T: Value>(random: &mut Random, elements: usize) -> Vec<T> {
    let mut values = Vec::with_capacity(elements);
    while values.len() < elements {
        let run = (1 + random.below(300)).min(elements - values.len());
        let (sort, scale) = (random.below(12), random.normal().abs() * 0.05 + 1e-4);
        values.extend((0..run).map(|_| match sort {
            0 => T::of(if random.below(2) == 0 { 0.0 } else { -0.0 }),
            // Subnormal in their type: 1 / scale is infinite or nearly so.
            1 => T::of(random.normal() * 1e-39),
            2 => T::of(random.normal() * 4e-8),
            3 => T::of(random.normal().clamp(-6.0, 6.0) * 1e4),
            4 if kind::<T>() != ElementType::F16 => T::of(random.normal().clamp(-6.0, 6.0) * 5e37),
            5..8 => match random.below(4) {
                0 => T::of(scale),
                1 => T::of(-scale),
                _ => {
                    let threshold = THRESHOLDS[random.below(THRESHOLDS.len())];
                    let near = [threshold.next_down(), threshold, threshold.next_up()][random.below(3)];
                    T::of(near * scale)
                }
            },
            _ => T::of(random.normal() * scale),
        }));
    }
    values
}

fn compare<T: Value>(gpu: &Gpu, kernel: &Nf4Quantise<T>, values: &[T], tensors: usize, block: usize) {
    let found = quantise(gpu, kernel, values, tensors, block);
    let size = BlockSize::new(block).unwrap();
    let elements = values.len() / tensors;
    let blocks = size.blocks(elements);
    for tensor in 0..tensors {
        let source = bytes(&values[tensor * elements..][..elements]);
        let (mut codes, mut absmax) = (vec![0; elements / 2], vec![0f32; blocks]);
        let source = Source { bytes: &source, element: kind::<T>() };
        quantise_blocks_scalar(source, size, &mut codes, &mut absmax).unwrap();
        let what = format!("tensor {tensor} of {tensors}, {elements} {} in blocks of {block}", T::NAME);
        assert_eq!(found.refused[tensor], Nf4Quantised::NONE_REFUSED, "{what}");
        let scales = &found.absmax[tensor * blocks..][..blocks];
        assert!(
            scales.iter().zip(&absmax).all(|(found, expected)| *found == expected.to_bits()),
            "scales, {what}"
        );
        let found = &found.codes[tensor * (elements / 2)..][..elements / 2];
        let place = found.iter().zip(&codes).position(|(found, expected)| found != expected);
        assert_eq!(place, None, "codes, {what}");
    }
}

fn compare_all<T: Value>(seed: u64) {
    let Some(gpu) = gpu() else { return };
    let kernel = Nf4Quantise::<T>::new(&gpu.device, &gpu.compiler).unwrap();
    let mut random = Random(seed);
    for elements in SIZES.into_iter().filter(|elements| runs(*elements, CHECKED)) {
        for block in [64, 1024] {
            compare(gpu, &kernel, &values(&mut random, elements), 1, block);
        }
    }
    for block in [32, 64, 128, 256, 512, 1024, 2048, 4096] {
        compare(gpu, &kernel, &values(&mut random, 300_006), 1, block);
        for (tensors, elements) in [(3, 8), (5, 4104), (7, 12_288), (300, 1000)] {
            compare(gpu, &kernel, &values(&mut random, tensors * elements), tensors, block);
        }
    }
}

#[test]
fn quantised_bf16_equals_the_definition_bit_by_bit() {
    compare_all::<bf16>(11);
}

#[test]
fn quantised_f16_equals_the_definition_bit_by_bit() {
    compare_all::<f16>(12);
}

#[test]
fn quantised_f32_equals_the_definition_bit_by_bit() {
    compare_all::<f32>(13);
}

#[test]
fn every_bf16_and_f16_beside_every_scale_of_a_kind_takes_its_code() {
    fn all<T: Value>(gpu: &Gpu, of: impl Fn(u16) -> T) {
        let kernel = Nf4Quantise::<T>::new(&gpu.device, &gpu.compiler).unwrap();
        let finite = |value: &T| value.wide().is_finite();
        // Ascending magnitudes: each block of 32 has a scale a little larger than the last.
        let values: Vec<T> = (0..=u16::MAX).map(|bits| of(bits.rotate_right(1))).filter(finite).collect();
        let values = &values[..values.len() / 2 * 2];
        for block in [32, 4096] {
            compare(gpu, &kernel, values, 1, block);
        }
    }
    let Some(gpu) = gpu() else { return };
    all(gpu, bf16::from_bits);
    all(gpu, f16::from_bits);
}

#[test]
fn the_first_element_that_is_not_finite_is_named_as_the_definition_names_it() {
    let Some(gpu) = gpu() else { return };
    let kernel = Nf4Quantise::<f32>::new(&gpu.device, &gpu.compiler).unwrap();
    let mut random = Random(14);
    for (block, tensors, elements) in
        [(64, 3, 10_000), (4096, 3, 10_000), (64, 1, 100_002), (2048, 1, 10_002)]
    {
        let mut values: Vec<f32> = random.elements(tensors * elements, 1.0);
        let bad = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
        for _ in 0..20 {
            // The first of three tensors stays whole.
            let whole = if tensors > 1 { elements } else { 0 };
            let place = whole + random.below(values.len() - whole);
            values[place] = bad[random.below(3)];
        }
        let found = quantise(gpu, &kernel, &values, tensors, block).refused;
        for (tensor, found) in found.into_iter().enumerate() {
            let values = &values[tensor * elements..][..elements];
            let first = values.iter().position(|value| !value.is_finite());
            assert_eq!(found, first.map_or(Nf4Quantised::NONE_REFUSED, |place| place as u64));
            let size = BlockSize::new(block).unwrap();
            let (mut codes, mut absmax) = (vec![0; elements / 2], vec![0.0; size.blocks(elements)]);
            let source = Source { bytes: &bytes(values), element: ElementType::F32 };
            let defined = quantise_blocks_scalar(source, size, &mut codes, &mut absmax);
            match (first, defined) {
                (None, defined) => defined.unwrap(),
                (Some(place), Err(Nf4Error::ElementNotFinite { index, .. })) => assert_eq!(index, place),
                (Some(_), other) => panic!("{other:?}"),
            }
        }
    }
}

fn compare_double(device: &Device, kernel: &Nf4Double, scales: &[Vec<f32>], what: &str) {
    let (tensors, blocks) = (scales.len(), scales[0].len());
    let nested_blocks = Nf4Double::nested_blocks(blocks);
    let absmax = device.upload(&scales.concat()).unwrap();
    let mut codes = device.upload(&vec![POISON; tensors * blocks + CANARY]).unwrap();
    let mut nested = device.upload(&vec![f32::NAN; tensors * nested_blocks + 1]).unwrap();
    let mut offsets = device.upload(&vec![f32::NAN; tensors + 1]).unwrap();
    let mut to = Nf4DoubleScales {
        codes: codes.part_mut(0..tensors * blocks).unwrap(),
        nested: nested.part_mut(0..tensors * nested_blocks).unwrap(),
        offsets: offsets.part_mut(0..tensors).unwrap(),
    };
    kernel.run(absmax.all(), blocks, &mut to).unwrap();
    let mut codes = device.download(codes.all()).unwrap();
    let canary = codes.split_off(tensors * blocks);
    assert!(canary.iter().all(|byte| *byte == POISON), "written past the end");
    let (nested, offsets) = (device.download(nested.all()).unwrap(), device.download(offsets.all()).unwrap());
    assert!(nested[tensors * nested_blocks].is_nan() && offsets[tensors].is_nan());
    for (tensor, scales) in scales.iter().enumerate() {
        let expected = DoubleQuantised::new(scales, &DYNAMIC_MAP).unwrap();
        let what = format!("{what}: tensor {tensor} of {tensors}, {blocks} scales");
        assert_eq!(offsets[tensor].to_bits(), expected.offset.to_bits(), "offset of {what}");
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        let nested = &nested[tensor * nested_blocks..][..nested_blocks];
        assert_eq!(bits(nested), bits(&expected.nested), "nested scales of {what}");
        assert!(codes[tensor * blocks..][..blocks] == expected.codes[..], "codes of {what}");
    }
}

#[test]
fn doubly_quantised_scales_equal_the_definition_bit_by_bit_also_where_sums_depend_on_order() {
    let Some(gpu) = gpu() else { return };
    let kernel = Nf4Double::new(&gpu.device, &gpu.compiler, &DYNAMIC_MAP).unwrap();
    let mut random = Random(15);
    for blocks in [1, 2, 31, 32, 33, 255, 256, 257, 1023, 1024, 1025, 8191, 45_056, 200_001] {
        for tensors in [1, 5].into_iter().filter(|tensors| runs(tensors * blocks, 46_000)) {
            let mut make = |scale: &dyn Fn(&mut Random) -> f32| -> Vec<Vec<f32>> {
                (0..tensors).map(|_| (0..blocks).map(|_| scale(&mut random)).collect()).collect()
            };
            let sorts = [
                ("of bf16", make(&|random| bf16::from_f32(0.1 + random.normal().abs() * 0.02).to_f32())),
                ("of f32", make(&|random| 0.1 + random.normal().abs() * 0.02)),
                ("all equal", make(&|_| 0.25)),
                ("zeros", make(&|_| 0.0)),
                // From 2^-126 to 2^100: no sum is exact.
                (
                    "far apart",
                    make(&|random| 2f32.powi(random.below(227) as i32 - 126) * (1.0 + random.normal().abs())),
                ),
                // 24 bits over 2^20: sums are exact at first and not at last.
                (
                    "on the edge",
                    make(&|random| 2f32.powi(random.below(20) as i32 - 10) * (1.0 + random.normal().abs())),
                ),
                ("subnormal", make(&|random| f32::from_bits(random.below(1 << 23) as u32))),
                ("huge", make(&|random| f32::MAX / (1.0 + random.normal().abs()))),
            ];
            for (what, scales) in sorts {
                compare_double(&gpu.device, &kernel, &scales, what);
            }
        }
    }
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let Some(gpu) = gpu() else { return };
    let device = &gpu.device;
    let kernel = Nf4Quantise::<bf16>::new(device, &gpu.compiler).unwrap();
    let values = device.zeros::<bf16>(1008).unwrap();
    let (mut codes, mut absmax, mut refused) =
        (device.zeros(512).unwrap(), device.zeros(32).unwrap(), device.zeros(2).unwrap());
    let mut refuse = |tensors: usize, elements: usize, start: usize, codes_start: usize, halves: usize| {
        let block = BlockSize::DEFAULT;
        let values = values.part(start..start + tensors * elements).unwrap();
        let mut to = Nf4Quantised {
            codes: codes.part_mut(codes_start..codes_start + halves).unwrap(),
            absmax: absmax.part_mut(0..tensors * block.blocks(elements)).unwrap(),
            refused: refused.part_mut(0..tensors).unwrap(),
        };
        kernel.run(&Nf4Source { tensors, elements, block, values }, &mut to).unwrap_err()
    };
    let error = refuse(1, 999, 0, 0, 499);
    assert!(matches!(error, CudaError::Value { found: 999, .. }), "{error}");
    let error = refuse(2, 500, 0, 0, 500);
    assert!(matches!(error, CudaError::Value { found: 500, .. }), "{error}");
    let error = refuse(1, 1000, 1, 0, 500);
    assert!(matches!(error, CudaError::Alignment { expected: 16, .. }), "{error}");
    let error = refuse(1, 1000, 0, 1, 500);
    assert!(matches!(error, CudaError::Alignment { expected: 4, .. }), "{error}");
    let error = refuse(1, 1000, 0, 0, 499);
    assert!(matches!(error, CudaError::Length { found: 499, expected: 500, .. }), "{error}");
}
