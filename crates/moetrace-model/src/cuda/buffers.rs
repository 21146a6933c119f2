//! All memory that passes work in, made once for the largest pass.

use moetrace_cuda::{Buffer, CudaError, Device, Element, Parking, ReadBack, Sequences, SliceMut};
use moetrace_routing::Planes;

use super::chunk::Chunk;
use super::placement::Placement;
use super::sections::Sections;
use crate::{ModelConfig, ModelError};

/// Layers whose routing may be on its way to the host while later ones compute.
pub(super) const LANES: usize = 4;

/// Chunks of hidden states that are on the device where the others wait on the host: the places of [`Parking`].
const PARKING: usize = 2;

/// Rows whose logits over the vocabulary are held at once: 419 MB at 102,400 entries.
pub(super) const HEAD_ROWS: usize = 1024;

/// Parts of the work area begin at multiples of so many elements: 256 bytes, the strictest alignment that cuBLASLt's
/// algorithms ask for. There are at most so many parts.
pub(super) const PART_ELEMENTS: usize = 128;
const PARTS: usize = 8;

/// How much of a pass there is at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    /// N: most tokens of a pass.
    pub(super) pass: usize,
    /// C: most tokens that a layer computes at once.
    pub(super) chunk: usize,
    /// Whether hidden states of a pass wait on the host.
    pub(super) parked: bool,
}

impl Extent {
    pub(super) fn of(placement: &Placement) -> Self {
        let pass = placement.tokens_per_pass.max(1);
        Self { pass, chunk: placement.tokens_per_chunk.clamp(1, pass), parked: placement.parks_hidden }
    }

    /// For passes of half as many tokens, in whole 512s if they are so many, and chunks that are smaller too; `None` if
    /// the longest text would have no room.
    pub(super) fn halved(self, longest_text: usize) -> Option<Self> {
        let half = |tokens: usize| match tokens / 2 {
            small @ ..512 => small,
            half => half / 512 * 512,
        };
        let pass = half(self.pass);
        if pass < longest_text.max(1) {
            return None;
        }
        let chunk = half(self.chunk).max(longest_text).min(pass);
        Some(Self { pass, chunk, ..self })
    }

    /// Most chunks of a pass, as [`Chunk::cut`] makes them.
    pub(super) fn chunks(self) -> usize {
        if self.chunk == self.pass { 1 } else { 3 * self.pass.div_ceil(self.chunk) + 1 }
    }
}

/// How many elements passes need, by what they are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) extent: Extent,
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
        extent: Extent,
        restored: usize,
        (fused, planes): (bool, Planes),
    ) -> Self {
        let tokens = extent.chunk;
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
            extent,
            choices,
            work: attention.max(dense).max(shared + experts) + PARTS * PART_ELEMENTS,
            restored,
            vocabulary: if planes.nll { HEAD_ROWS.min(tokens) * config.vocab() } else { 0 },
            lane: Sections::new(config, tokens, planes.logits).end,
        }
    }

    /// Bytes of all buffers on the device, with elements of `element` bytes.
    pub(super) fn bytes(&self, config: &ModelConfig, element: usize) -> u64 {
        let (n, c, d, e) = (self.extent.pass, self.extent.chunk, config.hidden(), config.experts());
        // Hidden states, or those of a chunk twice.
        let stream = if self.extent.parked { PARKING * c } else { n };
        let elements = (stream + 2 * c) * d + self.work + self.restored + n * config.head_width();
        // Tokens, positions, targets and losses; tiles of spans; offsets; the two orders of rows.
        let words = 4 * n + self.sequences() + e + 1 + 2 * self.extent.chunks() + 2 * self.choices;
        // The router's product.
        let words = words + c * e + self.vocabulary + LANES * self.lane;
        (elements * element + words * 4) as u64
    }

    /// Words of the tiles of all chunks' spans.
    fn sequences(&self) -> usize {
        self.extent.chunks() * Sequences::words(self.extent.chunk, self.extent.chunk)
    }

    /// Bytes of page-locked host memory: hidden states that wait there, and routing on its way.
    pub(super) fn host_bytes(&self, config: &ModelConfig, element: usize) -> u64 {
        let parked = if self.extent.parked { self.extent.pass * config.hidden() * element } else { 0 };
        (parked + LANES * self.lane * 4) as u64
    }
}

/// Hidden states of a pass, `[N, D]`.
#[derive(Debug)]
pub(super) enum Hidden<T> {
    Device(Buffer<T>),
    Parked(Parking<T>),
}

impl<T: Element> Hidden<T> {
    /// Those of a chunk of width D while its turn lasts.
    pub(super) fn chunk(
        &mut self,
        chunk: &Chunk,
        turn: usize,
        d: usize,
    ) -> Result<SliceMut<'_, T>, CudaError> {
        match self {
            Self::Device(buffer) => buffer.part_mut(chunk.elements(d)),
            Self::Parked(parking) => parking.place(turn, chunk.len() * d),
        }
    }
}

/// The buffers.
#[derive(Debug)]
pub(super) struct Buffers<T> {
    /// The residual stream.
    pub(super) stream: Hidden<T>,
    /// What was normed of it, and what is added to it next: `[C, D]` each.
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
    /// Of each chunk.
    pub(super) sequences: Vec<Sequences>,
    /// `[chunks, 2]`: 0 and the rows of a chunk, for products of all of them.
    pub(super) whole: Buffer<u32>,
    /// `[C, E]`, the router's product.
    pub(super) logits: Buffer<f32>,
    /// The routing of a chunk each, taken in turn.
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
        let Extent { pass: n, chunk: c, parked } = sizes.extent;
        let (e, d, chunks) = (config.experts(), config.hidden(), sizes.extent.chunks());
        let pairs = n * config.head_width() / 2;
        let sequences = (0..chunks).map(|_| Sequences::new(device, c, c));
        Ok(Self {
            stream: if parked {
                Hidden::Parked(Parking::new(device, n * d, c * d)?)
            } else {
                Hidden::Device(device.zeros(n * d)?)
            },
            normed: device.zeros(c * d)?,
            added: device.zeros(c * d)?,
            work: device.zeros(sizes.work)?,
            restored: device.zeros(sizes.restored)?,
            ids: device.zeros(n)?,
            positions: device.zeros(n)?,
            targets: device.zeros(n)?,
            cosines: device.zeros(pairs)?,
            sines: device.zeros(pairs)?,
            sequences: sequences.collect::<Result<_, _>>()?,
            whole: device.zeros(2 * chunks)?,
            logits: device.zeros(c * e)?,
            lanes: (0..LANES).map(|_| ReadBack::new(device, sizes.lane)).collect::<Result<_, _>>()?,
            losses: device.zeros(n)?,
            offsets: device.zeros(e + 1)?,
            places: device.zeros(sizes.choices)?,
            sources: device.zeros(sizes.choices)?,
            vocabulary: device.zeros(sizes.vocabulary)?,
        })
    }
}
