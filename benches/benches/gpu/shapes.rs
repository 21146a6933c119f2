//! DeepSeek-MoE-16B's widths, and the passes that are measured.

/// D, the hidden width.
pub(crate) const HIDDEN: usize = 2048;
/// E, experts of a layer.
pub(crate) const EXPERTS: usize = 64;
/// K, experts of a token.
pub(crate) const CHOSEN: usize = 6;
/// F, the width of an expert.
pub(crate) const EXPERT: usize = 1408;
/// The width of both shared experts together.
pub(crate) const SHARED: usize = 2816;
/// The width of the first layer's dense block.
pub(crate) const DENSE: usize = 10_944;
/// Heads of queries, and as many of keys and of values.
pub(crate) const HEADS: usize = 16;
/// The width of a head.
pub(crate) const HEAD: usize = 128;
/// Rows of the embedding.
pub(crate) const VOCAB: usize = 102_400;
/// Tokens of a text.
pub(crate) const SPAN: usize = 512;
/// Tokens of the passes whose operations are measured.
pub(crate) const TOKENS: [usize; 3] = [4096, 10_240, 40_960];
