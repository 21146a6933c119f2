//! `nf4_dequantise` against `Nf4Tensor::dequantise_scalar`, bit by bit.

use std::sync::Arc;

use half::{bf16, f16};
use moetrace_cuda::{Buffer, CudaError, Nf4Dequantise, Nf4Scales, Nf4Tables, Nf4Weights, SliceMut};
use moetrace_nf4::{
    BlockSize, CODE_VALUES, DYNAMIC_MAP, ElementType, NestedState, Nf4Tensor, QuantState, Scales,
};

use crate::support::{Gpu, Random, Value, assert_same, gpu, poisoned, results};

/// Around every boundary of the kernel: pairs, eights, blocks, tiles of 8192, and more tiles than blocks.
const SIZES: [usize; 22] = [
    2, 4, 6, 8, 10, 30, 32, 34, 62, 64, 66, 1022, 4094, 4096, 4098, 8190, 8192, 8194, 16_390, 100_002,
    1_000_006, 20_000_014,
];

/// A tensor's parts on the device.
struct Resident {
    codes: Buffer<u8>,
    plain: Buffer<f32>,
    nested_codes: Buffer<u8>,
    nested: Buffer<f32>,
    tables: Nf4Tables,
    state: QuantState,
}

impl Resident {
    fn new(gpu: &Gpu, tensor: &Nf4Tensor) -> Self {
        let device = &gpu.device;
        let (plain, codes, nested, map) = match tensor.scales() {
            Scales::Plain(absmax) => (&absmax[..], &[][..], &[][..], [0.0; 256]),
            Scales::Double { codes, map, nested } => (&[][..], &codes[..], &nested[..], **map),
        };
        Self {
            codes: device.upload(tensor.codes()).unwrap(),
            plain: device.upload(plain).unwrap(),
            nested_codes: device.upload(codes).unwrap(),
            nested: device.upload(nested).unwrap(),
            tables: Nf4Tables::new(device, tensor.values(), &map).unwrap(),
            state: tensor.state().clone(),
        }
    }

    fn weights(&self) -> Nf4Weights<'_> {
        let scales = match self.state.nested {
            None => Nf4Scales::Plain(self.plain.all()),
            Some(NestedState { block, offset }) => {
                Nf4Scales::Double { codes: self.nested_codes.all(), nested: self.nested.all(), block, offset }
            }
        };
        let elements = self.state.elements().unwrap();
        Nf4Weights {
            elements,
            block: self.state.block,
            codes: self.codes.all(),
            scales,
            tables: &self.tables,
        }
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

fn compare<T: Value>(gpu: &Gpu, kernel: &Nf4Dequantise<T>, tensor: &Nf4Tensor) {
    let mut expected = vec![T::default(); tensor.elements()];
    tensor.dequantise_scalar(&mut expected).unwrap();
    let mut out = poisoned::<T>(gpu, tensor.elements());
    let resident = Resident::new(gpu, tensor);
    kernel.run(&resident.weights(), &mut out.part_mut(0..tensor.elements()).unwrap()).unwrap();
    let what = format!("{} of {:?}", T::NAME, tensor.state());
    assert_same(&results(gpu, &out), &expected, &what);
}

fn compare_all<T: Value>(seed: u64) {
    let Some(gpu) = gpu() else { return };
    let kernel = Nf4Dequantise::<T>::new(&gpu.device, &gpu.compiler).unwrap();
    let mut random = Random(seed);
    for elements in SIZES {
        for nested in [None, Some(256)] {
            compare(gpu, &kernel, &tensor(&mut random, elements, 64, nested));
        }
    }
    for block in [32, 64, 128, 256, 512, 1024, 2048, 4096] {
        for nested in [None, Some(32), Some(64), Some(4096)] {
            compare(gpu, &kernel, &tensor(&mut random, 300_006, block, nested));
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
fn a_tensor_in_the_middle_of_a_buffer_leaves_its_neighbours_alone() {
    let Some(gpu) = gpu() else { return };
    let kernel = Nf4Dequantise::<bf16>::new(&gpu.device, &gpu.compiler).unwrap();
    let tensor = tensor(&mut Random(4), 10_002, 64, Some(256));
    let mut expected = vec![bf16::POISON; 24_000];
    tensor.dequantise_scalar(&mut expected[8..10_010]).unwrap();
    let mut out = poisoned::<bf16>(gpu, 24_000);
    let resident = Resident::new(gpu, &tensor);
    kernel.run(&resident.weights(), &mut out.part_mut(8..10_010).unwrap()).unwrap();
    let found: Vec<u16> = results(gpu, &out).iter().map(|value| value.to_bits()).collect();
    assert_eq!(found, expected.iter().map(|value| value.to_bits()).collect::<Vec<_>>());
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let Some(gpu) = gpu() else { return };
    let kernel = Nf4Dequantise::<bf16>::new(&gpu.device, &gpu.compiler).unwrap();
    let tensor = tensor(&mut Random(5), 1000, 64, Some(256));
    let resident = Resident::new(gpu, &tensor);
    let mut out = poisoned::<bf16>(gpu, 1000);
    let weights = resident.weights();
    let refused =
        |weights: &Nf4Weights<'_>, out: &mut SliceMut<'_, bf16>| kernel.run(weights, out).unwrap_err();
    let error = refused(&weights, &mut out.part_mut(0..998).unwrap());
    assert!(matches!(error, CudaError::Length { found: 998, expected: 1000, .. }), "{error}");
    let error = refused(&weights, &mut out.part_mut(1..1001).unwrap());
    assert!(matches!(error, CudaError::Alignment { expected: 16, .. }), "{error}");
    let error = refused(&Nf4Weights { elements: 999, ..weights }, &mut out.part_mut(0..999).unwrap());
    assert!(matches!(error, CudaError::Value { found: 999, .. }), "{error}");
    let error = refused(&Nf4Weights { elements: 1002, ..weights }, &mut out.part_mut(0..1002).unwrap());
    assert!(matches!(error, CudaError::Length { found: 500, expected: 501, .. }), "{error}");
    let fewer = Nf4Weights { block: BlockSize::new(32).unwrap(), ..weights };
    let error = refused(&fewer, &mut out.part_mut(0..1000).unwrap());
    assert!(matches!(error, CudaError::Length { found: 16, expected: 32, .. }), "{error}");
}
