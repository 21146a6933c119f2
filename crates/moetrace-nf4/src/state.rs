//! `quant_state`: the JSON that says how a tensor was quantised, one per tensor, as bytes of a U8 tensor.

use serde_json::Value;

use crate::{BlockSize, ElementType, Nf4Error, python_float};

/// A state is some 200 bytes; more is not a state.
const STATE_BYTES: usize = 16_384;
/// More dimensions than any tensor has.
const MOST_DIMENSIONS: usize = 16;

/// How one tensor was quantised.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantState {
    /// Elements that share a scale.
    pub block: BlockSize,
    /// Type of the tensor before it was quantised.
    pub element: ElementType,
    /// Shape of the tensor, outermost dimension first.
    pub shape: Vec<usize>,
    /// How the scales are stored; `None` for plain f32.
    pub nested: Option<NestedState>,
}

/// How the scales of a doubly quantised tensor are stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NestedState {
    /// Scales that share a scale of their own.
    pub block: BlockSize,
    /// Added to every restored scale.
    pub offset: f32,
}

impl QuantState {
    /// Elements of the tensor.
    ///
    /// # Errors
    /// [`Nf4Error::ShapeOverflow`] or [`Nf4Error::OddElements`].
    pub fn elements(&self) -> Result<usize, Nf4Error> {
        let product = self.shape.iter().try_fold(1usize, |product, width| product.checked_mul(*width));
        let elements = product.ok_or_else(|| Nf4Error::ShapeOverflow { shape: self.shape.clone() })?;
        if elements.is_multiple_of(2) { Ok(elements) } else { Err(Nf4Error::OddElements { found: elements }) }
    }

    /// Parses the bytes of a `quant_state.bitsandbytes__nf4` tensor.
    ///
    /// # Errors
    /// [`Nf4Error::StateLength`], [`Nf4Error::StateJson`], [`Nf4Error::StateKey`] for a key that is missing
    /// or not understood, [`Nf4Error::BlockSize`], and what [`elements`](Self::elements) refuses.
    pub fn parse(bytes: &[u8]) -> Result<Self, Nf4Error> {
        if bytes.len() > STATE_BYTES {
            return Err(Nf4Error::StateLength { found: bytes.len(), limit: STATE_BYTES });
        }
        let value: Value = serde_json::from_slice(bytes).map_err(|source| Nf4Error::StateJson { source })?;
        let keys = Keys(&value);
        keys.word("quant_type", "nf4", |word| (word == "nf4").then_some(()))?;
        let nested = match value.get("nested_offset") {
            None | Some(Value::Null) => None,
            Some(_) => Some(NestedState {
                block: BlockSize::new(keys.whole("nested_blocksize")?)?,
                offset: keys.offset()?,
            }),
        };
        if nested.is_some() {
            keys.word("nested_dtype", "float32", |word| (word == "float32").then_some(()))?;
        }
        let state = Self {
            block: BlockSize::new(keys.whole("blocksize")?)?,
            element: keys.word("dtype", "float32, float16 or bfloat16", ElementType::from_torch_name)?,
            shape: keys.shape()?,
            nested,
        };
        state.elements()?;
        Ok(state)
    }

    /// The bytes that Python's `json.dumps` writes for this state: its key order, separators and numbers.
    pub fn to_json(&self) -> String {
        let shape: Vec<String> = self.shape.iter().map(usize::to_string).collect();
        let nested = self.nested.map_or_else(String::new, |nested| {
            let (block, offset) = (nested.block, python_float(f64::from(nested.offset)));
            format!(r#", "nested_blocksize": {block}, "nested_dtype": "float32", "nested_offset": {offset}"#)
        });
        format!(
            r#"{{"quant_type": "nf4", "blocksize": {}, "dtype": "{}", "shape": [{}]{nested}}}"#,
            self.block,
            self.element,
            shape.join(", ")
        )
    }
}

/// The object's keys, each checked as it is read.
struct Keys<'a>(&'a Value);

impl Keys<'_> {
    fn refused(&self, key: &'static str, expected: &'static str) -> Nf4Error {
        let found = self
            .0
            .get(key)
            .map_or_else(|| "missing".to_owned(), |value| value.to_string().chars().take(80).collect());
        Nf4Error::StateKey { key, found, expected }
    }

    fn word<T>(
        &self,
        key: &'static str,
        expected: &'static str,
        accept: impl Fn(&str) -> Option<T>,
    ) -> Result<T, Nf4Error> {
        let word = self.0.get(key).and_then(Value::as_str);
        word.and_then(accept).ok_or_else(|| self.refused(key, expected))
    }

    fn whole(&self, key: &'static str) -> Result<usize, Nf4Error> {
        let whole = self.0.get(key).and_then(Value::as_u64).and_then(|number| usize::try_from(number).ok());
        whole.ok_or_else(|| self.refused(key, "a whole number"))
    }

    fn offset(&self) -> Result<f32, Nf4Error> {
        let key = "nested_offset";
        let offset = self.0.get(key).and_then(Value::as_f64).map(|offset| offset as f32);
        offset.filter(|offset| offset.is_finite()).ok_or_else(|| self.refused(key, "a finite number"))
    }

    fn shape(&self) -> Result<Vec<usize>, Nf4Error> {
        let refused = || self.refused("shape", "a list of 1 to 16 whole numbers");
        let list = self.0.get("shape").and_then(Value::as_array).ok_or_else(refused)?;
        if !(1..=MOST_DIMENSIONS).contains(&list.len()) {
            return Err(refused());
        }
        let width = |value: &Value| value.as_u64().and_then(|width| usize::try_from(width).ok());
        list.iter().map(|value| width(value).ok_or_else(refused)).collect()
    }
}
