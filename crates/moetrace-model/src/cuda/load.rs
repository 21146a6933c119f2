//! A checkpoint's tensors into device memory, one layer or part of it at a time.
//!
//! Buffers are made first, and what goes into them is noted. Then all of them are filled at once, so that every thread
//! is busy until the last byte: from the files through a small ring of pinned memory, without a tensor in between.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

use moetrace_cuda::{
    Buffer, Compiler, CudaError, Device, Element, Nf4Tables, Number, Room, SliceMut, Uploader,
    UploaderSettings,
};
use moetrace_nf4::Target;
use rayon::prelude::*;

use super::operations::Gpu;
use super::origin::Origin;
use super::places::Places;
use super::quantised::{Quantiser, SCRATCH};
use super::read::{Piece, Reader};
use super::weights::{Block, ExpertGroup, LayerWeights, Matrix, MoeWeights, SwiGlu};
use crate::ModelError;
use crate::checkpoint::{LayerNames, TensorRole};
use crate::family::{QkNorm, SharedExperts};

/// Reads tensors of one checkpoint onto one device.
pub(super) struct Loader<'a> {
    pub(super) reader: Reader<'a>,
    pub(super) device: &'a Device,
    pub(super) compiler: &'a Compiler,
    pub(super) quantiser: Quantiser,
    uploader: RefCell<Uploader>,
    /// What goes into each buffer, by its address.
    ordered: RefCell<HashMap<u64, Vec<Origin>>>,
    /// Tables of codes that are on the device already; all tensors of a checkpoint share theirs.
    tables: RefCell<Vec<(Codebook, Rc<Nf4Tables>)>>,
    /// Where buffers are cut from; each has memory of its own without.
    pub(super) room: RefCell<Option<Room>>,
    /// Bytes of elements that are quantised at a time.
    pub(super) scratch: usize,
}

/// Values of codes, and of codes of scales.
pub(super) type Codebook = ([f32; 16], [f32; 256]);

impl<'a> Loader<'a> {
    /// `spare`: bytes on the device that may be used until all is loaded.
    pub(super) fn new(reader: Reader<'a>, gpu: &'a Gpu, spare: u64) -> Result<Self, CudaError> {
        let uploader = Uploader::new(&gpu.device, UploaderSettings::default())?;
        Ok(Self {
            reader,
            device: &gpu.device,
            compiler: &gpu.compiler,
            quantiser: Quantiser::default(),
            uploader: RefCell::new(uploader),
            ordered: RefCell::default(),
            tables: RefCell::default(),
            room: RefCell::default(),
            scratch: SCRATCH.min(usize::try_from(spare).unwrap_or(SCRATCH)),
        })
    }
}

impl Loader<'_> {
    /// A layer; `groups` of its experts, of which there are none if they come later or are not needed.
    pub(super) fn layer<T: Element + Target>(
        &self,
        names: LayerNames,
        (groups, needs_block): (&[Range<usize>], bool),
    ) -> Result<LayerWeights<T>, ModelError> {
        let config = self.reader.config;
        let projections = ["q_proj", "k_proj", "v_proj"];
        let bias = |projection: &str| names.of(&format!("self_attn.{projection}.bias"));
        let qkv = projections
            .map(|projection| self.reader.piece(names.of(&format!("self_attn.{projection}.weight"))));
        let normed = config.family().rules().qk_norm != QkNorm::None;
        let norm = |name: &str| {
            normed
                .then(|| self.dense(&names.of(&format!("self_attn.{name}.weight")), TensorRole::Norm))
                .transpose()
        };
        let output = [self.reader.piece(names.of("self_attn.o_proj.weight"))];
        let qkv_bias =
            config.has_qkv_bias().then(|| projections.map(bias).map(|name| self.reader.piece(name)));
        Ok(LayerWeights {
            unit: None,
            input_norm: self.dense(&names.of("input_layernorm.weight"), TensorRole::Norm)?,
            qkv: self.matrix(&qkv)?,
            qkv_bias: qkv_bias.map(|pieces| self.joined(&pieces, TensorRole::Bias)).transpose()?,
            output: self.matrix(&output)?,
            output_bias: config
                .has_output_bias()
                .then(|| self.dense(&bias("o_proj"), TensorRole::Bias))
                .transpose()?,
            query_norm: norm("q_norm")?,
            key_norm: norm("k_norm")?,
            post_attention_norm: self
                .dense(&names.of("post_attention_layernorm.weight"), TensorRole::Norm)?,
            block: if config.is_moe(names.layer) {
                Block::Moe(Box::new(self.moe(names, (groups, needs_block))?))
            } else {
                Block::Dense(self.swiglu(&names.of("mlp"))?)
            },
        })
    }

    fn moe<T: Element + Target>(
        &self,
        names: LayerNames,
        (groups, needs_block): (&[Range<usize>], bool),
    ) -> Result<MoeWeights<T>, ModelError> {
        let rules = self.reader.config.family().rules();
        let shared = match rules.shared {
            SharedExperts::Added if self.reader.config.shared_width() > 0 => Some("shared_experts"),
            SharedExperts::None | SharedExperts::Added => None,
            SharedExperts::Gated => Some("shared_expert"),
        };
        let shared = shared.filter(|_| needs_block).map(|module| self.swiglu(&names.moe(module)));
        let gated = rules.shared == SharedExperts::Gated;
        let gate = gated.then(|| self.dense(&names.moe("shared_expert_gate.weight"), TensorRole::SharedGate));
        let group = |ids: &Range<usize>| {
            Ok(ExpertGroup { ids: ids.clone(), unit: None, weights: self.experts(names, ids.clone())? })
        };
        Ok(MoeWeights {
            router: self.dense(&names.moe("gate.weight"), TensorRole::Router)?,
            experts: groups.iter().map(group).collect::<Result<_, ModelError>>()?,
            shared: shared.transpose()?,
            shared_gate: gate.transpose()?,
        })
    }

    /// Experts with these ids.
    pub(super) fn experts<T: Element + Target>(
        &self,
        names: LayerNames,
        ids: Range<usize>,
    ) -> Result<SwiGlu<T>, ModelError> {
        let (d, f) = (self.reader.config.hidden(), self.reader.config.expert_width());
        let part = |name: &str, number, rows, columns| Piece {
            name: names.moe(name),
            part: Some((number, rows * columns)),
            rows,
            columns,
        };
        let [gate, up, down] = self.reader.config.family().rules().expert_projections;
        let of = |expert, projection| self.reader.piece(names.expert(expert, projection));
        let (gate_up, down): (Vec<Piece>, Vec<Piece>) = if names.layout.fused {
            // Each projection by itself, as in a checkpoint of separate experts: scales are averaged over a tensor.
            let both = 2 * ids.start..2 * ids.end;
            let gate_up = both.map(|number| part("experts.gate_up_proj", number, f, d));
            (gate_up.collect(), ids.map(|number| part("experts.down_proj", number, d, f)).collect())
        } else {
            let gate_up = ids.clone().flat_map(|expert| [of(expert, gate), of(expert, up)]);
            (gate_up.collect(), ids.map(|expert| of(expert, down)).collect())
        };
        Ok(SwiGlu { gate_up: self.matrix(&gate_up)?, down: self.matrix(&down)? })
    }

    fn swiglu<T: Element + Target>(&self, module: &str) -> Result<SwiGlu<T>, ModelError> {
        let piece = |projection: &str| self.reader.piece(format!("{module}.{projection}.weight"));
        let gate_up = [piece("gate_proj"), piece("up_proj")];
        Ok(SwiGlu { gate_up: self.matrix(&gate_up)?, down: self.matrix(&[piece("down_proj")])? })
    }

    /// A tensor that is held dense.
    pub(super) fn dense<T: Element + Target>(
        &self,
        name: &str,
        role: TensorRole,
    ) -> Result<Buffer<T>, ModelError> {
        self.joined(&[self.reader.piece(name.to_owned())], role)
    }

    /// Projections below each other, in 4 bits where they are stored or wanted so.
    fn matrix<T: Element + Target>(&self, pieces: &[Piece]) -> Result<Matrix<T>, ModelError> {
        let reader = self.reader;
        let quantises = reader.quantises(TensorRole::Projection);
        // Stacks restore eights; other widths, which no published model has, are held as they are computed with.
        let eights = pieces.len() == 1 || pieces.iter().all(|piece| piece.elements().is_multiple_of(8));
        if !eights || !pieces.iter().all(|piece| quantises || reader.is_stored_in_four_bits(piece)) {
            return Ok(Matrix::Dense(self.joined(pieces, TensorRole::Projection)?));
        }
        let stacks = if quantises { self.quantised_stacks(pieces) } else { self.stored_stacks(pieces) };
        Ok(Matrix::Nf4(stacks?))
    }

    pub(super) fn tables(&self, wanted: &Codebook) -> Result<Rc<Nf4Tables>, ModelError> {
        let mut known = self.tables.borrow_mut();
        if let Some((_, tables)) = known.iter().find(|(codebook, _)| codebook == wanted) {
            return Ok(Rc::clone(tables));
        }
        let tables = Rc::new(Nf4Tables::new(self.device, &wanted.0, &wanted.1)?);
        known.push((*wanted, Rc::clone(&tables)));
        Ok(tables)
    }

    /// Pieces one below the other, rounded to the type of the activations.
    fn joined<T: Element + Target>(
        &self,
        pieces: &[Piece],
        role: TensorRole,
    ) -> Result<Buffer<T>, ModelError> {
        let reader = self.reader;
        let origins = pieces.par_iter().map(|piece| reader.dense(piece, role, T::ELEMENT));
        self.ordered(pieces.iter().map(Piece::elements).sum(), origins.collect::<Result<_, _>>()?)
    }

    /// A buffer of so many elements, to be filled with these, one behind the other.
    pub(super) fn ordered<E: Element>(
        &self,
        elements: usize,
        origins: Vec<Origin>,
    ) -> Result<Buffer<E>, ModelError> {
        let mut buffer = self.taken(elements)?;
        self.order(&buffer.all_mut().into_bytes(), origins);
        Ok(buffer)
    }

    /// As [`ordered`](Self::ordered), of bytes.
    pub(super) fn ordered_bytes(&self, bytes: usize, origins: Vec<Origin>) -> Result<Buffer<u8>, ModelError> {
        let mut buffer = self.taken(bytes)?;
        self.order(&buffer.all_mut(), origins);
        Ok(buffer)
    }

    /// Memory for so many elements of a weight; what it holds is to be written.
    pub(super) fn taken<E: Number>(&self, elements: usize) -> Result<Buffer<E>, CudaError> {
        match &mut *self.room.borrow_mut() {
            Some(room) => room.cut(elements),
            None => self.device.zeros(elements),
        }
    }

    fn order(&self, place: &SliceMut<'_, u8>, origins: Vec<Origin>) {
        // What is empty may share its address with what comes next.
        if place.is_empty() {
            return;
        }
        self.ordered.borrow_mut().insert(place.address(), origins);
    }

    /// Fills those of the places that were ordered, and waits until all is there.
    pub(super) fn fill(&self, places: Places<'_>) -> Result<(), ModelError> {
        let orders = places.into_iter().filter(|place| !place.is_empty()).filter_map(|place| {
            let origins = self.ordered.borrow_mut().remove(&place.address())?;
            Some((place, origins))
        });
        self.bring(orders.collect())?;
        Ok(self.device.synchronise()?)
    }

    /// What was ordered for places in a room, by its first byte there; `None` if a place was written already.
    pub(super) fn orders(&self, places: &Places<'_>, room: u64) -> Option<Vec<(usize, Vec<Origin>)>> {
        let mut ordered = self.ordered.borrow_mut();
        let order = |place: &SliceMut<'_, u8>| {
            let start = usize::try_from(place.address() - room).ok()?;
            if place.is_empty() {
                Some((start, Vec::new()))
            } else {
                Some((start, ordered.remove(&place.address())?))
            }
        };
        places.iter().map(order).collect()
    }

    /// Fails if anything ordered was never filled.
    pub(super) fn check_all_filled(&self) -> Result<(), CudaError> {
        let found = self.ordered.borrow().len();
        let what = "the list of what has no place among the weights";
        if found == 0 { Ok(()) } else { Err(CudaError::Length { what, found, expected: 0 }) }
    }

    /// Copies to each place what belongs there, one behind the other. The last copies may still run.
    pub(super) fn bring(&self, orders: Vec<(SliceMut<'_, u8>, Vec<Origin>)>) -> Result<(), ModelError> {
        let (mut places, mut all_origins) = (Vec::new(), Vec::new());
        for (mut rest, origins) in orders {
            for origin in &origins {
                let (place, behind) = rest.split(origin.bytes())?;
                places.push(place);
                rest = behind;
            }
            if !rest.is_empty() {
                let what = "a buffer that is loaded, without what belongs there,";
                return Err(CudaError::Length { what, found: rest.len(), expected: 0 }.into());
            }
            all_origins.extend(origins);
        }
        let checkpoint = self.reader.checkpoint;
        self.uploader.borrow_mut().run(self.device, &mut places, |place, start, bytes| {
            all_origins[place].fill(checkpoint, start, bytes)
        })
    }
}
