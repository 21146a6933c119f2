//! All memory that passes work in, made once for the largest pass.

use moetrace_cuda::{Buffer, Device, Element, ReadBack, Sequences};
use moetrace_routing::Planes;

use super::sections::Sections;
use crate::{ModelConfig, ModelError};

/// Layers whose routing may be on its way to the host while later ones compute.
pub(super) const LANES: usize = 4;

/// Rows whose logits over the vocabulary are held at once: 419 MB at 102,400 entries.
pub(super) const HEAD_ROWS: usize = 1024;

/// Parts of the work area begin at multiples of so many elements: 256 bytes, the strictest alignment that cuBLASLt's
/// algorithms ask for. There are at most so many parts.
pub(super) const PART_ELEMENTS: usize = 128;
const PARTS: usize = 8;

/// How many elements passes of `tokens` need, by what they are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sizes {
    /// N: most tokens of a pass.
    pub(super) tokens: usize,
    /// R: most pairs of a token and an expert.
    pub(super) choices: usize,
    /// Elements that attention, a dense block, or experts take at a time.
    pub(super) work: usize,
    /// Elements of the largest matrix restored from 4 bits.
    pub(super) restored: usize,
    /// Logits over the vocabulary.
    pub(super) vocabulary: usize,
    /// Words of one layer's routing.
    pub(super) lane: usize,
}

impl Sizes {
    /// `fused`: gate, up and activation are one operation, and what lies between them is nowhere.
    pub(super) fn new(
        config: &ModelConfig,
        tokens: usize,
        restored: usize,
        (fused, planes): (bool, Planes),
    ) -> Self {
        let (d, f) = (config.hidden(), config.expert_width());
        let (queries, keys) = (config.heads() * config.head_width(), config.kv_heads() * config.head_width());
        let choices = tokens * config.chosen();
        let attention = tokens * (2 * queries + 2 * keys);
        let widths = if fused { 1 } else { 3 };
        let dense = tokens * widths * config.dense_width();
        let shared =
            tokens * (widths * config.shared_width() + if config.shared_width() > 0 { d } else { 0 });
        let experts = choices * (d + widths * f);
        Self {
            tokens,
            choices,
            work: attention.max(dense).max(shared + experts) + PARTS * PART_ELEMENTS,
            restored,
            vocabulary: if planes.nll { HEAD_ROWS.min(tokens) * config.vocab() } else { 0 },
            lane: Sections::new(config, tokens, planes.logits).end,
        }
    }

    /// Bytes of all buffers, with elements of `element` bytes.
    pub(super) fn bytes(&self, config: &ModelConfig, element: usize) -> u64 {
        let (n, e) = (self.tokens, config.experts());
        let elements = 3 * n * config.hidden() + self.work + self.restored + n * config.head_width();
        // Tokens, positions, targets and losses; the router's product; tiles of spans; offsets; the two orders of rows.
        let words = n * (4 + e) + Sequences::words(n, n) + e + 3 + 2 * self.choices;
        let words = words + self.vocabulary + LANES * self.lane;
        (elements * element + words * 4) as u64
    }
}

/// The buffers.
#[derive(Debug)]
pub(super) struct Buffers<T> {
    /// The residual stream, what was normed of it, and what is added to it next: `[N, D]` each.
    pub(super) stream: Buffer<T>,
    pub(super) normed: Buffer<T>,
    pub(super) added: Buffer<T>,
    pub(super) work: Buffer<T>,
    pub(super) restored: Buffer<T>,
    /// `[N]` each.
    pub(super) ids: Buffer<u32>,
    pub(super) positions: Buffer<u32>,
    pub(super) targets: Buffer<u32>,
    /// `[N, w / 2]` each: angles of positions, or of each row.
    pub(super) cosines: Buffer<T>,
    pub(super) sines: Buffer<T>,
    pub(super) sequences: Sequences,
    /// `[2]`: 0 and N, for products of all rows.
    pub(super) whole: Buffer<u32>,
    /// `[N, E]`, the router's product.
    pub(super) logits: Buffer<f32>,
    /// One layer's routing each, taken in turn.
    pub(super) lanes: Vec<ReadBack<u32>>,
    /// `[N]`.
    pub(super) losses: Buffer<f32>,
    /// `[E + 1]`.
    pub(super) offsets: Buffer<u32>,
    /// `[R]` each.
    pub(super) places: Buffer<u32>,
    pub(super) sources: Buffer<u32>,
    /// `[HEAD_ROWS, V]`.
    pub(super) vocabulary: Buffer<f32>,
}

impl<T: Element> Buffers<T> {
    pub(super) fn new(device: &Device, config: &ModelConfig, sizes: &Sizes) -> Result<Self, ModelError> {
        let (n, e, d) = (sizes.tokens, config.experts(), config.hidden());
        let pairs = n * config.head_width() / 2;
        Ok(Self {
            stream: device.zeros(n * d)?,
            normed: device.zeros(n * d)?,
            added: device.zeros(n * d)?,
            work: device.zeros(sizes.work)?,
            restored: device.zeros(sizes.restored)?,
            ids: device.zeros(n)?,
            positions: device.zeros(n)?,
            targets: device.zeros(n)?,
            cosines: device.zeros(pairs)?,
            sines: device.zeros(pairs)?,
            sequences: Sequences::new(device, n, n)?,
            logits: device.zeros(n * e)?,
            whole: device.zeros(2)?,
            lanes: (0..LANES).map(|_| ReadBack::new(device, sizes.lane)).collect::<Result<_, _>>()?,
            losses: device.zeros(n)?,
            offsets: device.zeros(e + 1)?,
            places: device.zeros(sizes.choices)?,
            sources: device.zeros(sizes.choices)?,
            vocabulary: device.zeros(sizes.vocabulary)?,
        })
    }
}
