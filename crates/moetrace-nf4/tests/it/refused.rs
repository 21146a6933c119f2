//! What is refused, and how it is named.

use std::sync::Arc;

use moetrace_nf4::{
    BlockSize, CODE_VALUES, DYNAMIC_MAP, ElementType, NestedState, Nf4Error, Nf4Settings, Nf4Tensor,
    QuantState, Scales, Source,
};

fn quantise(values: &[f32]) -> Result<Nf4Tensor, Nf4Error> {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let source = Source { bytes: &bytes, element: ElementType::F32 };
    Nf4Tensor::quantise(source, &[values.len()], Nf4Settings::default())
}

#[test]
fn a_weight_that_is_not_finite_is_named_with_its_index() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for index in [0, 63, 64, 130] {
            let mut values = vec![0.5; 132];
            values[index] = bad;
            let error = quantise(&values).unwrap_err();
            assert!(matches!(error, Nf4Error::ElementNotFinite { index: i, .. } if i == index), "{error}");
        }
    }
}

#[test]
fn an_odd_number_of_elements_is_refused() {
    assert!(matches!(quantise(&[1.0; 63]).unwrap_err(), Nf4Error::OddElements { found: 63 }));
}

#[test]
fn a_source_of_another_size_than_its_shape_is_refused() {
    let source = Source { bytes: &[0; 16], element: ElementType::F32 };
    let error = Nf4Tensor::quantise(source, &[2, 4], Nf4Settings::default()).unwrap_err();
    assert!(matches!(error, Nf4Error::Elements { found: 4, expected: 8, .. }), "{error}");
}

#[test]
fn block_sizes_other_than_powers_of_two_from_32_to_4096_are_refused() {
    for found in [0, 1, 16, 63, 65, 96, 8192, usize::MAX] {
        assert!(matches!(BlockSize::new(found), Err(Nf4Error::BlockSize { .. })), "{found}");
    }
}

fn state(nested: bool) -> QuantState {
    let nested = nested.then(|| NestedState { block: BlockSize::new(256).unwrap(), offset: 1.0 });
    QuantState { block: BlockSize::DEFAULT, element: ElementType::Bf16, shape: vec![2, 64], nested }
}

fn double(codes: usize, nested: usize) -> Scales {
    Scales::Double {
        codes: vec![0; codes].into(),
        map: Arc::new(DYNAMIC_MAP),
        nested: vec![1.0; nested].into(),
    }
}

#[test]
fn parts_of_the_wrong_length_are_named() {
    let parts = |codes: usize, scales, nested| {
        Nf4Tensor::from_parts(state(nested), vec![0; codes].into(), scales, CODE_VALUES)
    };
    assert!(parts(64, double(2, 1), true).is_ok());
    let name = |result: Result<Nf4Tensor, Nf4Error>| match result.unwrap_err() {
        Nf4Error::PartLength { part, .. } | Nf4Error::PartMissing { part, .. } => part,
        other => panic!("{other}"),
    };
    assert_eq!(name(parts(63, double(2, 1), true)), "weight");
    assert_eq!(name(parts(64, double(3, 1), true)), "absmax");
    assert_eq!(name(parts(64, double(2, 2), true)), "nested_absmax");
    assert_eq!(name(parts(64, Scales::Plain(vec![1.0].into()), false)), "absmax");
    assert_eq!(name(parts(64, Scales::Plain(vec![1.0; 2].into()), true)), "nested_absmax");
    assert_eq!(name(parts(64, double(2, 1), false)), "nested_offset");
}

#[test]
fn numbers_of_a_checkpoint_that_are_not_finite_are_named() {
    let mut values = CODE_VALUES;
    values[3] = f32::NAN;
    let plain = || Scales::Plain(vec![1.0; 2].into());
    let error = Nf4Tensor::from_parts(state(false), vec![0; 64].into(), plain(), values).unwrap_err();
    assert!(matches!(error, Nf4Error::PartNotFinite { part: "quant_map", index: 3, .. }), "{error}");
    let scales = Scales::Plain(vec![1.0, f32::INFINITY].into());
    let error = Nf4Tensor::from_parts(state(false), vec![0; 64].into(), scales, CODE_VALUES).unwrap_err();
    assert!(matches!(error, Nf4Error::PartNotFinite { part: "absmax", index: 1, .. }), "{error}");
}

#[test]
fn an_output_of_another_length_is_refused() {
    let tensor = quantise(&[1.0; 64]).unwrap();
    let error = tensor.dequantise(&mut [0f32; 63]).unwrap_err();
    assert!(matches!(error, Nf4Error::OutputLength { found: 63, expected: 64 }), "{error}");
}
