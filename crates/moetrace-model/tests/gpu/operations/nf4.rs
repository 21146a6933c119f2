//! `nf4_dequantise` against `Nf4Tensor::dequantise_scalar`, bit by bit.

use std::ops::Range;
use std::sync::Arc;

use half::{bf16, f16};
use moetrace_cuda::{Buffer, CudaError, Nf4Dequantise, Nf4Scales, Nf4Stack, Nf4Tables, SliceMut};
use moetrace_nf4::{
    BlockSize, CODE_VALUES, DYNAMIC_MAP, ElementType, NestedState, Nf4Tensor, QuantState, Scales,
};

use crate::support::{Gpu, Random, Value, assert_same, gpu, poisoned, results, runs};

/// Elements of the largest stack under a checker.
const CHECKED: usize = 310_000;

/// Around every boundary of the kernel: pairs, eights, blocks, tiles of 4096.
const SIZES: [usize; 22] = [
    2, 4, 6, 8, 10, 30, 32, 34, 62, 64, 66, 1022, 4094, 4096, 4098, 8190, 8192, 8194, 16_390, 100_002,
    1_000_006, 20_000_014,
];

/// Tensors and elements of each: partial blocks, partial tiles, whole tiles, more tensors than multiprocessors.
const STACKS: [(usize, usize); 8] =
    [(2, 8), (3, 40), (5, 4088), (4, 4096), (7, 4104), (3, 300_008), (64, 12_296), (300, 1000)];

/// A stack's parts on the device.
struct Resident {
    codes: Buffer<u8>,
    plain: Buffer<f32>,
    nested_codes: Buffer<u8>,
    nested: Buffer<f32>,
    offsets: Buffer<f32>,
    tables: Nf4Tables,
    tensors: usize,
    state: QuantState,
}

impl Resident {
    fn new(gpu: &Gpu, tensors: &[Nf4Tensor]) -> Self {
        let device = &gpu.device;
        let (mut codes, mut plain) = (Vec::new(), Vec::new());
        let (mut nested_codes, mut nested_scales, mut offsets) = (Vec::new(), Vec::new(), Vec::new());
        let mut all_map = [0.0; 256];
        for tensor in tensors {
            codes.extend_from_slice(tensor.codes());
            match tensor.scales() {
                Scales::Plain(absmax) => plain.extend_from_slice(absmax),
                Scales::Double { codes, map, nested } => {
                    nested_codes.extend_from_slice(codes);
                    nested_scales.extend_from_slice(nested);
                    all_map = **map;
                }
            }
            offsets.extend(tensor.state().nested.as_ref().map(|nested| nested.offset));
        }
        Self {
            codes: device.upload(&codes).unwrap(),
            plain: device.upload(&plain).unwrap(),
            nested_codes: device.upload(&nested_codes).unwrap(),
            nested: device.upload(&nested_scales).unwrap(),
            offsets: device.upload(&offsets).unwrap(),
            tables: Nf4Tables::new(device, tensors[0].values(), &all_map).unwrap(),
            tensors: tensors.len(),
            state: tensors[0].state().clone(),
        }
    }

    fn stack(&self) -> Nf4Stack<'_> {
        self.part(0..self.tensors)
    }

    /// Some of the tensors.
    fn part(&self, tensors: Range<usize>) -> Nf4Stack<'_> {
        let (elements, block) = (self.state.elements().unwrap(), self.state.block);
        let blocks = block.blocks(elements);
        let of = |each: usize| tensors.start * each..tensors.end * each;
        let scales = match &self.state.nested {
            None => Nf4Scales::Plain(self.plain.part(of(blocks)).unwrap()),
            Some(NestedState { block, .. }) => Nf4Scales::Double {
                codes: self.nested_codes.part(of(blocks)).unwrap(),
                nested: self.nested.part(of(block.blocks(blocks))).unwrap(),
                offsets: self.offsets.part(of(1)).unwrap(),
                block: *block,
            },
        };
        let codes = self.codes.part(of(elements / 2)).unwrap();
        Nf4Stack { tensors: tensors.len(), elements, block, codes, scales, tables: &self.tables }
    }
}

/// Random codes and scales; every eighth scale is very large or very small.
fn tensor(random: &mut Random, elements: usize, block: usize, nested_block: Option<usize>) -> Nf4Tensor {
    let block = BlockSize::new(block).unwrap();
    let blocks = block.blocks(elements);
    let scale = |random: &mut Random| match random.below(16) {
        0 => random.normal() * 1e-38,
        1 => random.normal() * 3e4,
        _ => random.normal() * 0.05,
    };
    let codes = (0..elements / 2).map(|_| random.bits() as u8).collect();
    let nested_block = nested_block.map(|nested| BlockSize::new(nested).unwrap());
    let (scales, nested) = match nested_block {
        None => (Scales::Plain((0..blocks).map(|_| scale(random)).collect()), None),
        Some(nested) => {
            let scales = Scales::Double {
                codes: (0..blocks).map(|_| random.bits() as u8).collect(),
                map: Arc::new(DYNAMIC_MAP),
                nested: (0..nested.blocks(blocks)).map(|_| scale(random)).collect(),
            };
            (scales, Some(NestedState { block: nested, offset: random.normal() * 0.04 }))
        }
    };
    let state = QuantState { block, element: ElementType::Bf16, shape: vec![elements], nested };
    Nf4Tensor::from_parts(state, codes, scales, CODE_VALUES).unwrap()
}

/// So many tensors, each with scales and an offset of its own.
fn tensors(
    random: &mut Random,
    (count, elements): (usize, usize),
    block: usize,
    nested_block: Option<usize>,
) -> Vec<Nf4Tensor> {
    (0..count).map(|_| tensor(random, elements, block, nested_block)).collect()
}

fn expected<T: Value>(tensors: &[Nf4Tensor]) -> Vec<T> {
    let restored = tensors.iter().map(|tensor| {
        let mut out = vec![T::default(); tensor.elements()];
        tensor.dequantise_scalar(&mut out).unwrap();
        out
    });
    restored.collect::<Vec<_>>().concat()
}

fn compare<T: Value>(gpu: &Gpu, kernel: &Nf4Dequantise<T>, tensors: &[Nf4Tensor]) {
    let expected = expected(tensors);
    let mut out = poisoned::<T>(gpu, expected.len());
    let resident = Resident::new(gpu, tensors);
    kernel.run(&resident.stack(), &mut out.part_mut(0..expected.len()).unwrap()).unwrap();
    let what = format!("{} of {} times {:?}", T::NAME, tensors.len(), tensors[0].state());
    assert_same(&results(gpu, &out), &expected, &what);
}

fn compare_all<T: Value>(seed: u64) {
    let Some(gpu) = gpu() else { return };
    let kernel = Nf4Dequantise::<T>::new(&gpu.device, &gpu.compiler).unwrap();
    let mut random = Random(seed);
    let shapes = SIZES.map(|elements| (1, elements)).into_iter().chain(STACKS);
    for shape in shapes.filter(|(tensors, elements)| runs(tensors * elements, CHECKED)) {
        for nested in [None, Some(256)] {
            compare(gpu, &kernel, &tensors(&mut random, shape, 64, nested));
        }
    }
    for block in [32, 64, 128, 256, 512, 1024, 2048, 4096] {
        for nested in [None, Some(32), Some(64), Some(4096)] {
            compare(gpu, &kernel, &tensors(&mut random, (1, 300_006), block, nested));
            compare(gpu, &kernel, &tensors(&mut random, (3, 100_008), block, nested));
        }
    }
}

#[test]
fn restored_bf16_equals_the_definition_bit_by_bit() {
    compare_all::<bf16>(1);
}

#[test]
fn restored_f16_equals_the_definition_bit_by_bit() {
    compare_all::<f16>(2);
}

#[test]
fn restored_f32_equals_the_definition_bit_by_bit() {
    compare_all::<f32>(3);
}

#[test]
fn some_of_a_stack_in_the_middle_of_a_buffer_leaves_its_neighbours_alone() {
    let Some(gpu) = gpu() else { return };
    let kernel = Nf4Dequantise::<bf16>::new(&gpu.device, &gpu.compiler).unwrap();
    let tensors = tensors(&mut Random(4), (5, 10_008), 64, Some(256));
    let resident = Resident::new(gpu, &tensors);
    let place = 8..8 + 3 * 10_008;
    let mut expected = vec![bf16::POISON; 40_000];
    expected[place.clone()].copy_from_slice(&self::expected::<bf16>(&tensors[1..4]));
    let mut out = poisoned::<bf16>(gpu, 40_000);
    kernel.run(&resident.part(1..4), &mut out.part_mut(place).unwrap()).unwrap();
    kernel.run(&resident.part(2..2), &mut out.part_mut(0..0).unwrap()).unwrap();
    let found: Vec<u16> = results(gpu, &out).iter().map(|value| value.to_bits()).collect();
    assert_eq!(found, expected.iter().map(|value| value.to_bits()).collect::<Vec<_>>());
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let Some(gpu) = gpu() else { return };
    let kernel = Nf4Dequantise::<bf16>::new(&gpu.device, &gpu.compiler).unwrap();
    let resident = Resident::new(gpu, &tensors(&mut Random(5), (2, 1000), 64, Some(256)));
    let mut out = poisoned::<bf16>(gpu, 2000);
    let (stack, one) = (resident.stack(), resident.part(0..1));
    let refused = |stack: &Nf4Stack<'_>, out: &mut SliceMut<'_, bf16>| kernel.run(stack, out).unwrap_err();
    let error = refused(&stack, &mut out.part_mut(0..1998).unwrap());
    assert!(matches!(error, CudaError::Length { found: 1998, expected: 2000, .. }), "{error}");
    let error = refused(&stack, &mut out.part_mut(1..2001).unwrap());
    assert!(matches!(error, CudaError::Alignment { expected: 16, .. }), "{error}");
    let error = refused(&Nf4Stack { elements: 1002, ..stack }, &mut out.part_mut(0..2004).unwrap());
    assert!(matches!(error, CudaError::Value { found: 1002, .. }), "{error}");
    let error = refused(&Nf4Stack { tensors: 65_536, ..stack }, &mut out.part_mut(0..2000).unwrap());
    assert!(matches!(error, CudaError::Value { found: 65_536, .. }), "{error}");
    let error = refused(&Nf4Stack { elements: 999, ..one }, &mut out.part_mut(0..999).unwrap());
    assert!(matches!(error, CudaError::Value { found: 999, .. }), "{error}");
    let error = refused(&Nf4Stack { elements: 1002, ..one }, &mut out.part_mut(0..1002).unwrap());
    assert!(matches!(error, CudaError::Length { found: 500, expected: 501, .. }), "{error}");
    let fewer = Nf4Stack { block: BlockSize::new(32).unwrap(), ..stack };
    let error = refused(&fewer, &mut out.part_mut(0..2000).unwrap());
    assert!(matches!(error, CudaError::Length { found: 32, expected: 64, .. }), "{error}");
    let Nf4Scales::Double { codes, nested, block, .. } = stack.scales else { panic!("double scales") };
    let offsets = resident.offsets.part(0..1).unwrap();
    let fewer = Nf4Stack { scales: Nf4Scales::Double { codes, nested, offsets, block }, ..stack };
    let error = refused(&fewer, &mut out.part_mut(0..2000).unwrap());
    assert!(matches!(error, CudaError::Length { found: 1, expected: 2, .. }), "{error}");
}
