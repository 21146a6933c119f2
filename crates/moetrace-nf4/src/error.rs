//! What can be wrong with 4-bit weights. The caller knows the tensor's name and adds it.

/// Everything that this crate refuses, with what was found and what was expected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the message of each variant says what its fields are")]
pub enum Nf4Error {
    #[error("block size is {found}, expected a power of two from 32 to 4096")]
    BlockSize { found: usize },
    #[error("{found} elements, expected an even number: two share a byte")]
    OddElements { found: usize },
    #[error("shape {shape:?} has {expected} elements, the source has {found}")]
    Elements { shape: Vec<usize>, found: usize, expected: usize },
    #[error("the product of shape {shape:?} does not fit this machine's words")]
    ShapeOverflow { shape: Vec<usize> },
    #[error("element {index} is {found}, expected a finite number")]
    ElementNotFinite { index: usize, found: f32 },

    #[error("quant_state is {found} bytes, expected at most {limit}")]
    StateLength { found: usize, limit: usize },
    #[error("quant_state is not valid JSON: {source}")]
    StateJson { source: serde_json::Error },
    #[error("quant_state: {key} is {found}, expected {expected}")]
    StateKey { key: &'static str, found: String, expected: &'static str },

    #[error("{part} is {found} bytes, expected {expected}")]
    PartLength { part: &'static str, found: usize, expected: usize },
    #[error("{part} holds {found} at place {index}, expected a finite number")]
    PartNotFinite { part: &'static str, index: usize, found: f32 },
    #[error("{part} is missing, expected {expected}")]
    PartMissing { part: &'static str, expected: &'static str },
    #[error("elements {start}..{end} of {elements} in blocks of {block} were asked for")]
    OutputRange { start: usize, end: usize, elements: usize, block: usize },
    #[error("{found} places for {expected} elements")]
    OutputLength { found: usize, expected: usize },
}
