//! Tensors quantised by bitsandbytes 0.47 on a CPU: `fixtures/nf4`.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use half::{bf16, f16};
use moetrace_nf4::{
    BlockSize, CODE_VALUES, DYNAMIC_MAP, DoubleQuantised, ElementType, NestedState, Nf4Settings, Nf4Tensor,
    QuantState, ScaleMap, Scales, Source, Target, quantise_blocks, quantise_blocks_scalar,
};
use safetensors::{Dtype, SafeTensors};

struct Golden {
    bytes: Vec<u8>,
}

/// One tensor of the file and what was made of it.
struct Case<'a> {
    name: &'static str,
    block: usize,
    /// The offset that `tensors.json` lists.
    offset: Option<f32>,
    file: &'a SafeTensors<'a>,
}

const CASES: [(&str, usize, Option<f32>); 11] = [
    ("even_f32", 64, None),
    ("even_dq", 64, Some(2.548_925_6)),
    ("tail_f32", 64, None),
    ("tail_dq", 64, Some(2.511_796_2)),
    ("block128", 128, None),
    ("zeros", 64, None),
    ("zero_block_dq", 64, Some(1.843_161_6)),
    ("outlier_dq", 64, Some(9.923_764)),
    ("bf16_dq", 64, Some(2.613_484_6)),
    ("f16_dq", 64, Some(2.559_580_6)),
    ("many_blocks_dq", 64, Some(3.811_480_3)),
];

impl Golden {
    fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/nf4/tensors.safetensors.zst");
        Self { bytes: zstd::decode_all(&fs::read(path).unwrap()[..]).unwrap() }
    }

    fn each(&self, mut check: impl FnMut(&Case<'_>)) {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        for (name, block, offset) in CASES {
            check(&Case { name, block, offset, file: &file });
        }
    }
}

impl Case<'_> {
    fn bytes(&self, part: &str) -> &[u8] {
        self.file.tensor(&format!("{}.{part}", self.name)).unwrap().data()
    }

    fn floats(&self, part: &str) -> Vec<f32> {
        self.bytes(part).as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    fn shape(&self) -> Vec<usize> {
        self.file.tensor(&format!("{}.w", self.name)).unwrap().shape().to_vec()
    }

    fn source(&self) -> Source<'_> {
        let element = match self.file.tensor(&format!("{}.w", self.name)).unwrap().dtype() {
            Dtype::F32 => ElementType::F32,
            Dtype::F16 => ElementType::F16,
            Dtype::BF16 => ElementType::Bf16,
            other => panic!("{other:?}"),
        };
        Source { bytes: self.bytes("w"), element }
    }

    fn block(&self) -> BlockSize {
        BlockSize::new(self.block).unwrap()
    }

    fn map(&self) -> [f32; 256] {
        self.floats("nested_code").try_into().unwrap()
    }
}

/// Steps between two finite f32 of one sign.
fn ulps(a: f32, b: f32) -> u32 {
    a.to_bits().abs_diff(b.to_bits())
}

#[test]
fn code_values_are_those_of_the_reference() {
    let golden = Golden::read();
    let file = SafeTensors::deserialize(&golden.bytes).unwrap();
    let values = file.tensor("nf4_code").unwrap().data().to_vec();
    assert_eq!(values, CODE_VALUES.map(f32::to_le_bytes).concat());
}

#[test]
fn codes_and_plain_scales_are_bit_exact_on_every_tensor() {
    Golden::read().each(|case| {
        for quantise in [quantise_blocks, quantise_blocks_scalar] {
            let (source, block) = (case.source(), case.block());
            let mut codes = vec![0; source.elements() / 2];
            let mut absmax = vec![0f32; block.blocks(source.elements())];
            quantise(source, block, &mut codes, &mut absmax).unwrap();
            assert_eq!(codes, case.bytes("packed"), "{}", case.name);
            if case.offset.is_none() {
                assert_eq!(absmax, case.floats("absmax"), "{}", case.name);
            }
        }
    });
}

/// With the map that the reference used (its entry 0 is -1.0). Its mean is summed in f32 in an order of its own.
#[test]
fn offsets_are_within_one_ulp_and_no_code_of_a_scale_flips() {
    let mut flipped = Vec::new();
    Golden::read().each(|case| {
        let Some(offset) = case.offset else { return };
        let (source, block) = (case.source(), case.block());
        let mut codes = vec![0; source.elements() / 2];
        let mut absmax = vec![0f32; block.blocks(source.elements())];
        quantise_blocks(source, block, &mut codes, &mut absmax).unwrap();
        let double = DoubleQuantised::new(&absmax, &case.map()).unwrap();
        assert!(ulps(double.offset, offset) <= 1, "{}: {} and {offset}", case.name, double.offset);
        for (found, expected) in double.nested.iter().zip(case.floats("nested_absmax")) {
            // The offset enters by subtraction: one ulp of it, and one of the difference.
            let ulp = offset.max(expected) * f32::EPSILON;
            assert!((found - expected).abs() <= ulp, "{}: {found} and {expected}", case.name);
        }
        let pairs = double.codes.iter().zip(case.bytes("absmax")).enumerate();
        flipped.extend(pairs.filter(|(_, (a, b))| a != b).map(|(i, (a, b))| (case.name, i, *a, *b)));
    });
    assert_eq!(flipped, [], "(case, block, ours, theirs)");
}

#[test]
fn the_two_maps_are_those_of_the_two_libraries() {
    let bits = |map: [f32; 256]| map.map(f32::to_bits);
    Golden::read().each(|case| {
        if case.offset.is_some() {
            assert_eq!(bits(case.map()), bits(ScaleMap::CpuLibrary.values()));
            assert_eq!(bits(case.map())[1..], bits(DYNAMIC_MAP)[1..]);
        }
    });
}

/// The CPU library rounds the code values to the target type before it multiplies; the CUDA library, which is
/// our definition, does not. With values rounded in that way the 16-bit results are the reference's too.
#[test]
fn reading_the_stored_parts_gives_the_references_values_bit_by_bit() {
    Golden::read().each(|case| {
        let nested = case.offset.map(|offset| NestedState { block: BlockSize::new(256).unwrap(), offset });
        let state =
            QuantState { block: case.block(), element: case.source().element, shape: case.shape(), nested };
        let scales = match case.offset {
            None => Scales::Plain(case.floats("absmax").into()),
            Some(_) => Scales::Double {
                codes: case.bytes("absmax").into(),
                map: Arc::new(case.map()),
                nested: case.floats("nested_absmax").into(),
            },
        };
        let values = match case.source().element {
            ElementType::F32 => CODE_VALUES,
            ElementType::F16 => CODE_VALUES.map(|value| f16::from_f32(value).to_f32()),
            ElementType::Bf16 => CODE_VALUES.map(|value| bf16::from_f32(value).to_f32()),
        };
        let tensor = Nf4Tensor::from_parts(state, case.bytes("packed").into(), scales, values).unwrap();
        let found = match case.source().element {
            ElementType::F32 => restored::<f32>(&tensor).iter().flat_map(|v| v.to_le_bytes()).collect(),
            ElementType::F16 => restored::<f16>(&tensor).iter().flat_map(|v| v.to_le_bytes()).collect(),
            ElementType::Bf16 => {
                restored::<bf16>(&tensor).iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>()
            }
        };
        assert!(found == case.bytes("dq"), "{}", case.name);
    });
}

fn restored<T: Target>(tensor: &Nf4Tensor) -> Vec<T> {
    let mut out = vec![T::default(); tensor.elements()];
    tensor.dequantise(&mut out).unwrap();
    out
}

#[test]
fn a_block_of_zeros_has_codes_zero_and_restores_zeros_without_double_quantisation() {
    let zeros = [0u8; 256];
    let settings = Nf4Settings { double_quant: false, ..Nf4Settings::default() };
    let source = Source { bytes: &zeros, element: ElementType::F32 };
    let tensor = Nf4Tensor::quantise(source, &[64], settings).unwrap();
    assert_eq!(tensor.codes(), [0; 32]);
    assert!(restored::<f32>(&tensor).iter().all(|value| *value == 0.0));
}
