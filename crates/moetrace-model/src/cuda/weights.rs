//! Weights in device memory.

use std::ops::Range;
use std::rc::Rc;

use moetrace_cuda::{
    Buffer, CudaError, Device, Element, Nf4Dequantise, Nf4Scales, Nf4Stack, Nf4Tables, Pinned, Slice,
    SliceMut,
};
use moetrace_nf4::BlockSize;

/// All weights of a model.
#[derive(Debug)]
pub(super) struct Weights<T> {
    /// `[V, D]`.
    pub(super) embedding: Table<T>,
    pub(super) layers: Vec<LayerWeights<T>>,
    pub(super) final_norm: Buffer<T>,
    /// `[V, D]`, only where losses are wanted and the head is not the embedding.
    pub(super) head: Option<Buffer<T>>,
}

/// A table of rows, of which each pass needs some.
#[derive(Debug)]
pub(super) enum Table<T> {
    Device(Buffer<T>),
    /// Rows are read over the bus.
    Host(Pinned<u8>),
}

impl<T: Element> Table<T> {
    pub(super) fn rows(&self, device: &Device) -> Result<Slice<'_, T>, CudaError> {
        match self {
            Self::Device(buffer) => Ok(buffer.all()),
            Self::Host(pinned) => pinned.elements(device),
        }
    }

    /// Bytes on the device, and of page-locked memory.
    pub(super) fn bytes(&self) -> (u64, u64) {
        match self {
            Self::Device(buffer) => (buffer.bytes(), 0),
            Self::Host(pinned) => (0, pinned.len() as u64),
        }
    }
}

/// One decoder layer.
#[derive(Debug)]
pub(super) struct LayerWeights<T> {
    /// What of the stream brings all of it, but for groups of experts that come by themselves.
    pub(super) unit: Option<usize>,
    pub(super) input_norm: Buffer<T>,
    /// Queries, keys and values below each other, `[(H + 2 Hkv) w, D]`.
    pub(super) qkv: Matrix<T>,
    pub(super) qkv_bias: Option<Buffer<T>>,
    /// `[D, H w]`.
    pub(super) output: Matrix<T>,
    pub(super) output_bias: Option<Buffer<T>>,
    pub(super) query_norm: Option<Buffer<T>>,
    pub(super) key_norm: Option<Buffer<T>>,
    pub(super) post_attention_norm: Buffer<T>,
    pub(super) block: Block<T>,
}

/// What follows attention.
#[derive(Debug)]
pub(super) enum Block<T> {
    Dense(SwiGlu<T>),
    Moe(Box<MoeWeights<T>>),
}

/// A feed-forward block.
#[derive(Debug)]
pub(super) struct SwiGlu<T> {
    /// Gate above up, `[2F, D]`.
    pub(super) gate_up: Matrix<T>,
    /// `[D, F]`.
    pub(super) down: Matrix<T>,
}

/// Router and experts.
#[derive(Debug)]
pub(super) struct MoeWeights<T> {
    /// `[E, D]`.
    pub(super) router: Buffer<T>,
    /// In ascending order of their ids; none where nobody needs what they compute.
    pub(super) experts: Vec<ExpertGroup<T>>,
    pub(super) shared: Option<SwiGlu<T>>,
    /// `[D]`.
    pub(super) shared_gate: Option<Buffer<T>>,
}

/// Experts that follow each other.
#[derive(Debug)]
pub(super) struct ExpertGroup<T> {
    /// Their ids.
    pub(super) ids: Range<usize>,
    /// What of the stream brings them, if they do not come with their layer.
    pub(super) unit: Option<usize>,
    /// For G experts `[G, 2F, D]` and `[G, D, F]`.
    pub(super) weights: SwiGlu<T>,
}

/// Elements as they are computed with, or in 4 bits.
#[derive(Debug)]
pub(super) enum Matrix<T> {
    Dense(Buffer<T>),
    /// Stacks whose elements follow each other.
    Nf4(Vec<Stack>),
}

/// Quantised tensors of one size.
#[derive(Debug)]
pub(super) struct Stack {
    pub(super) tensors: usize,
    /// Of each tensor.
    pub(super) elements: usize,
    pub(super) block: BlockSize,
    pub(super) codes: Buffer<u8>,
    pub(super) scales: StackScales,
    pub(super) tables: Rc<Nf4Tables>,
}

/// Scales of a stack.
#[derive(Debug)]
pub(super) enum StackScales {
    Plain(Buffer<f32>),
    Double { codes: Buffer<u8>, nested: Buffer<f32>, offsets: Buffer<f32>, block: BlockSize },
}

impl<T: Element> Matrix<T> {
    /// Elements in all.
    pub(super) fn elements(&self) -> usize {
        match self {
            Self::Dense(buffer) => buffer.len(),
            Self::Nf4(stacks) => stacks.iter().map(|stack| stack.tensors * stack.elements).sum(),
        }
    }

    /// The elements: where they are, or restored into `scratch`, which has room for them.
    pub(super) fn restored<'a>(
        &'a self,
        dequantise: &Nf4Dequantise<T>,
        scratch: &'a mut SliceMut<'_, T>,
    ) -> Result<Slice<'a, T>, CudaError> {
        let stacks = match self {
            Self::Dense(buffer) => return Ok(buffer.all()),
            Self::Nf4(stacks) => stacks,
        };
        let mut start = 0;
        for stack in stacks {
            let end = start + stack.tensors * stack.elements;
            dequantise.run(&stack.lent(), &mut scratch.part_mut(start..end)?)?;
            start = end;
        }
        scratch.all().part(0..start)
    }

    /// Bytes held; what tables take is not counted.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Dense(buffer) => buffer.bytes(),
            Self::Nf4(stacks) => stacks.iter().map(Stack::bytes).sum(),
        }
    }
}

impl Stack {
    fn lent(&self) -> Nf4Stack<'_> {
        Nf4Stack {
            tensors: self.tensors,
            elements: self.elements,
            block: self.block,
            codes: self.codes.all(),
            scales: match &self.scales {
                StackScales::Plain(scales) => Nf4Scales::Plain(scales.all()),
                StackScales::Double { codes, nested, offsets, block } => Nf4Scales::Double {
                    codes: codes.all(),
                    nested: nested.all(),
                    offsets: offsets.all(),
                    block: *block,
                },
            },
            tables: &self.tables,
        }
    }

    fn bytes(&self) -> u64 {
        self.codes.bytes()
            + match &self.scales {
                StackScales::Plain(scales) => scales.bytes(),
                StackScales::Double { codes, nested, offsets, .. } => {
                    codes.bytes() + nested.bytes() + offsets.bytes()
                }
            }
    }
}

impl<T: Element> SwiGlu<T> {
    fn bytes(&self) -> u64 {
        self.gate_up.bytes() + self.down.bytes()
    }
}

impl<T: Element> LayerWeights<T> {
    /// Whether its experts come in groups by themselves.
    pub(super) fn comes_by_group(&self) -> bool {
        match &self.block {
            Block::Dense(_) => false,
            Block::Moe(moe) => moe.experts.iter().any(|group| group.unit.is_some()),
        }
    }

    fn bytes(&self) -> u64 {
        let vectors = [&self.qkv_bias, &self.output_bias, &self.query_norm, &self.key_norm];
        let vectors = vectors.into_iter().flatten().chain([&self.input_norm, &self.post_attention_norm]);
        let block = match &self.block {
            Block::Dense(block) => block.bytes(),
            Block::Moe(moe) => {
                let shared = moe.shared.as_ref().map_or(0, SwiGlu::bytes);
                let gate = moe.shared_gate.as_ref().map_or(0, Buffer::bytes);
                let experts = moe.experts.iter().filter(|group| group.unit.is_none());
                let experts = experts.map(|group| group.weights.bytes()).sum::<u64>();
                moe.router.bytes() + experts + shared + gate
            }
        };
        vectors.map(Buffer::bytes).sum::<u64>() + self.qkv.bytes() + self.output.bytes() + block
    }

    /// Elements of its largest matrix that is restored before it is used; 0 if none is.
    fn restored_elements(&self) -> usize {
        let blocks: Vec<&SwiGlu<T>> = match &self.block {
            Block::Dense(block) => vec![block],
            Block::Moe(moe) => moe.experts.iter().map(|group| &group.weights).chain(&moe.shared).collect(),
        };
        let matrices = blocks.iter().flat_map(|block| [&block.gate_up, &block.down]);
        let quantised =
            matrices.chain([&self.qkv, &self.output]).filter(|matrix| matches!(matrix, Matrix::Nf4(_)));
        quantised.map(Matrix::elements).max().unwrap_or(0)
    }
}

impl<T: Element> Weights<T> {
    /// Bytes of the weights that stay on the device.
    pub(super) fn bytes(&self) -> u64 {
        let head = self.head.as_ref().map_or(0, Buffer::bytes);
        let resident = self.layers.iter().filter(|layer| layer.unit.is_none());
        let layers = resident.map(LayerWeights::bytes).sum::<u64>();
        self.embedding.bytes().0 + self.final_norm.bytes() + head + layers
    }

    /// Elements of the largest matrix that is restored before it is used.
    pub(super) fn restored_elements(&self) -> usize {
        self.layers.iter().map(LayerWeights::restored_elements).max().unwrap_or(0)
    }
}
