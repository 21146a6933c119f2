//! `quant_state` JSON: read from and written as Python writes it.

use moetrace_nf4::{BlockSize, ElementType, NestedState, Nf4Error, QuantState};
use proptest::prelude::*;

/// Bytes of a published layout, from a checkpoint that bitsandbytes wrote.
const NESTED: &str = r#"{"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [64, 160], "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.20904426276683807}"#;
const PLAIN: &str = r#"{"quant_type": "nf4", "blocksize": 128, "dtype": "bfloat16", "shape": [2, 64]}"#;

#[test]
fn states_are_written_with_the_bytes_that_were_read() {
    for text in [NESTED, PLAIN] {
        assert_eq!(QuantState::parse(text.as_bytes()).unwrap().to_json(), text);
    }
}

#[test]
fn keys_may_come_in_any_order_and_unknown_ones_are_passed_over() {
    let text = r#"{"shape":[2,64],"later":{"a":[1]},"dtype":"float16","blocksize":64,"quant_type":"nf4"}"#;
    let state = QuantState::parse(text.as_bytes()).unwrap();
    assert_eq!((state.element, state.shape, state.nested), (ElementType::F16, vec![2, 64], None));
}

#[test]
fn what_is_not_understood_is_refused_by_key() {
    let cases = [
        (r#""quant_type": "nf4""#, r#""quant_type": "fp4""#, "quant_type"),
        (r#""quant_type": "nf4", "#, "", "quant_type"),
        (r#""blocksize": 64"#, r#""blocksize": -64"#, "blocksize"),
        (r#""dtype": "float32""#, r#""dtype": "float64""#, "dtype"),
        ("[64, 160]", "[]", "shape"),
        ("[64, 160]", "[64, 1.5]", "shape"),
        ("[64, 160]", "\"64\"", "shape"),
        ("256", "\"256\"", "nested_blocksize"),
        ("0.20904426276683807", "\"0.2\"", "nested_offset"),
        ("0.20904426276683807", "1e300", "nested_offset"),
        (r#""nested_dtype": "float32""#, r#""nested_dtype": "float16""#, "nested_dtype"),
    ];
    for (old, new, expected) in cases {
        let text = NESTED.replacen(old, new, 1);
        assert_ne!(text, NESTED, "{old}");
        let error = QuantState::parse(text.as_bytes()).unwrap_err();
        assert!(matches!(error, Nf4Error::StateKey { key, .. } if key == expected), "{text}: {error}");
    }
}

#[test]
fn hostile_shapes_are_refused_before_anything_is_allocated() {
    let with = |shape: &str| QuantState::parse(PLAIN.replace("[2, 64]", shape).as_bytes()).unwrap_err();
    assert!(matches!(with("[4294967296, 4294967296, 2]"), Nf4Error::ShapeOverflow { .. }));
    assert!(matches!(with("[3, 63]"), Nf4Error::OddElements { found: 189 }));
    let long = format!("[{}]", vec!["1"; 9000].join(","));
    assert!(matches!(with(&long), Nf4Error::StateLength { .. }));
}

#[test]
fn a_block_size_that_no_library_writes_is_refused() {
    let error = QuantState::parse(PLAIN.replace("128", "100").as_bytes()).unwrap_err();
    assert!(matches!(error, Nf4Error::BlockSize { found: 100 }), "{error}");
}

proptest! {
    #[test]
    fn a_state_that_is_written_reads_back_the_same(
        shape in proptest::collection::vec(0usize..1000, 1..4), offset in any::<f32>(), bits in 5u32..=12,
    ) {
        prop_assume!(offset.is_finite());
        let block = BlockSize::new(1 << bits).unwrap();
        let nested = Some(NestedState { block, offset });
        let state = QuantState { block, element: ElementType::Bf16, shape, nested };
        prop_assume!(state.elements().is_ok());
        prop_assert_eq!(QuantState::parse(state.to_json().as_bytes()).unwrap(), state);
    }

    #[test]
    fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = QuantState::parse(&bytes);
    }

    #[test]
    fn no_damaged_state_makes_the_parser_panic(at in 0..NESTED.len(), byte in any::<u8>()) {
        let mut bytes = NESTED.as_bytes().to_vec();
        bytes[at] = byte;
        if let Ok(state) = QuantState::parse(&bytes) {
            prop_assert!(state.elements().is_ok());
        }
    }
}
