//! Properties over random tensors: vectors equal scalars, threads change nothing, errors stay in bounds.

use half::{bf16, f16};
use moetrace_nf4::{
    BlockSize, CODE_VALUES, ElementType, Nf4Settings, Nf4Tensor, Source, Target, quantise_blocks,
    quantise_blocks_scalar,
};
use proptest::prelude::*;

fn bytes_of(values: &[f32], element: ElementType) -> Vec<u8> {
    match element {
        ElementType::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        ElementType::F16 => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
        ElementType::Bf16 => values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
    }
}

/// Values of very different sizes, zeros of both signs, and code thresholds times a power of two.
fn value() -> impl Strategy<Value = f32> {
    prop_oneof![
        8 => -1.0f32..1.0,
        2 => -1e-3f32..1e-3,
        1 => Just(0.0),
        1 => Just(-0.0),
        1 => -60000f32..60000.0,
        1 => proptest::num::f32::SUBNORMAL,
        2 => (0usize..15, -3i32..3).prop_map(|(t, p)| moetrace_nf4::THRESHOLDS[t] * 2f32.powi(p)),
    ]
}

fn tensor() -> impl Strategy<Value = (Vec<f32>, ElementType, BlockSize)> {
    let element = prop_oneof![Just(ElementType::F32), Just(ElementType::F16), Just(ElementType::Bf16)];
    let block = (5u32..=12).prop_map(|bits| BlockSize::new(1 << bits).unwrap());
    let values = proptest::collection::vec(value(), 0..3000).prop_map(|mut values| {
        values.truncate(values.len() / 2 * 2);
        values
    });
    (values, element, block)
}

fn settings(block: BlockSize, double_quant: bool) -> Nf4Settings {
    Nf4Settings { block, double_quant, ..Nf4Settings::default() }
}

fn same_bits<T: Target + PartialEq + std::fmt::Debug>(tensor: &Nf4Tensor, bits: impl Fn(T) -> u32) {
    let mut all = [(); 3].map(|()| vec![T::default(); tensor.elements()]);
    tensor.dequantise_scalar(&mut all[0]).unwrap();
    tensor.dequantise(&mut all[1]).unwrap();
    tensor.dequantise_parallel(&mut all[2]).unwrap();
    let [scalar, vector, parallel] = all.map(|values| values.into_iter().map(&bits).collect::<Vec<_>>());
    assert!(scalar == vector, "one thread");
    assert!(scalar == parallel, "several threads");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn vector_quantising_equals_the_scalar_definition((values, element, block) in tensor()) {
        let bytes = bytes_of(&values, element);
        let source = Source { bytes: &bytes, element };
        let run = |quantise: fn(Source<'_>, BlockSize, &mut [u8], &mut [f32]) -> Result<(), _>| {
            let mut codes = vec![0xAA; values.len() / 2];
            let mut absmax = vec![f32::NAN; block.blocks(values.len())];
            quantise(source, block, &mut codes, &mut absmax).unwrap();
            (codes, absmax.into_iter().map(f32::to_bits).collect::<Vec<_>>())
        };
        prop_assert!(run(quantise_blocks) == run(quantise_blocks_scalar));
    }

    #[test]
    fn every_way_of_dequantising_equals_the_scalar_definition(
        (values, element, block) in tensor(), double_quant: bool,
    ) {
        let bytes = bytes_of(&values, element);
        let source = Source { bytes: &bytes, element };
        let tensor = Nf4Tensor::quantise(source, &[values.len()], settings(block, double_quant)).unwrap();
        same_bits::<f32>(&tensor, f32::to_bits);
        same_bits::<bf16>(&tensor, |v| u32::from(v.to_bits()));
        same_bits::<f16>(&tensor, |v| u32::from(v.to_bits()));
    }

    #[test]
    fn an_element_comes_back_within_half_the_widest_gap_of_its_block(values in proptest::collection::vec(-4f32..4.0, 64..640)) {
        let values = &values[..values.len() / 2 * 2];
        let bytes = bytes_of(values, ElementType::F32);
        let source = Source { bytes: &bytes, element: ElementType::F32 };
        let tensor = Nf4Tensor::quantise(source, &[values.len()], settings(BlockSize::DEFAULT, false)).unwrap();
        let mut found = vec![0f32; values.len()];
        tensor.dequantise(&mut found).unwrap();
        // The widest gap lies between the two lowest codes.
        let gap = CODE_VALUES[1] - CODE_VALUES[0];
        for (block, (found, values)) in found.chunks(64).zip(values.chunks(64)).enumerate() {
            for (found, value) in found.iter().zip(values) {
                prop_assert!((found - value).abs() <= tensor.scale(block) * (gap / 2.0 + 1e-6));
            }
        }
    }

    #[test]
    fn quantising_what_was_restored_gives_the_same_codes(values in proptest::collection::vec(-4f32..4.0, 64..640)) {
        let values = &values[..values.len() / 2 * 2];
        let bytes = bytes_of(values, ElementType::F32);
        let settings = settings(BlockSize::DEFAULT, false);
        let once = Nf4Tensor::quantise(Source { bytes: &bytes, element: ElementType::F32 }, &[values.len()], settings).unwrap();
        let mut restored = vec![0f32; values.len()];
        once.dequantise(&mut restored).unwrap();
        let bytes = bytes_of(&restored, ElementType::F32);
        let twice = Nf4Tensor::quantise(Source { bytes: &bytes, element: ElementType::F32 }, &[values.len()], settings).unwrap();
        prop_assert!(once.codes() == twice.codes());
    }
}

#[test]
fn threads_change_no_bit_of_a_large_tensor() {
    let values: Vec<f32> =
        (0..300_000).map(|i| ((i as u64 * 7919 + 13) % 10_007) as f32 / 5003.0 - 1.0).collect();
    let bytes = bytes_of(&values, ElementType::Bf16);
    let source = Source { bytes: &bytes, element: ElementType::Bf16 };
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| Nf4Tensor::quantise(source, &[300, 1000], Nf4Settings::default()).unwrap())
    };
    assert!(with(1) == with(3));
}
