//! All weights, each where its placement says.

use std::ops::Range;
use std::sync::Arc;

use moetrace_cuda::{Element, Pinned, Slots};
use moetrace_nf4::Target;
use rayon::prelude::*;

use super::load::Loader;
use super::memory::Needed;
use super::placement::{Place, Placement};
use super::places::Places;
use super::read_ahead::DiskUnit;
use super::stream::{Blob, Stream, Unit};
use super::weights::{Block, ExpertGroup, LayerWeights, SwiGlu, Table, Weights};
use crate::ModelError;
use crate::checkpoint::{ExpertLayout, LayerNames, TensorRole};

/// Slots that streamed weights take turns in: one is computed with while the other is filled.
pub(super) const SLOTS: usize = 2;

/// Bytes of a table in host memory that a thread fills at a time.
const FILLED: usize = 2 << 20;

/// Loads everything, with the language-model head if losses are wanted; all of it is there when this returns.
pub(super) struct Arrange<'a> {
    pub(super) loader: Loader<'a>,
    pub(super) layouts: &'a [ExpertLayout],
    pub(super) placement: &'a Placement,
    pub(super) losses: bool,
    /// Bytes of the largest part of a layer that streams.
    pub(super) slot_bytes: usize,
}

/// Parts of layers that come one by one, as far as they are loaded.
struct Streamed {
    slots: Slots,
    units: Vec<Unit>,
}

impl Arrange<'_> {
    pub(super) fn weights<T: Element + Target>(self) -> Result<(Weights<T>, Option<Stream>), ModelError> {
        let config = self.loader.reader.config;
        let (layouts, needed) = (self.layouts, Needed::new(config, self.losses));
        let place = |layer: usize| self.placement.layers.get(layer).copied().unwrap_or(Place::Device);
        let streams = needed.layers().any(|layer| place(layer) != Place::Device);
        let slots = || Slots::new(self.loader.device, SLOTS, self.slot_bytes);
        let mut streamed =
            streams.then(slots).transpose()?.map(|slots| Streamed { slots, units: Vec::new() });
        let mut layers = Vec::new();
        for layer in needed.layers() {
            let names = LayerNames { layer, layout: layouts[layer] };
            let groups = if needed.block(layer) { self.groups() } else { Vec::new() };
            layers.push(match (place(layer), &mut streamed) {
                (Place::Device, _) | (_, None) => self.loader.layer(names, (&groups, needed.block(layer)))?,
                (place, Some(streamed)) => {
                    self.streamed_layer((names, place), (&groups, needed.block(layer)), streamed)?
                }
            });
        }
        let tied = self.losses && config.has_tied_head();
        let head = self.losses && !config.has_tied_head();
        let embedding = "model.embed_tokens.weight";
        let mut weights = Weights {
            embedding: if self.placement.embedding == Place::Device || tied {
                Table::Device(self.loader.dense(embedding, TensorRole::Embedding)?)
            } else {
                Table::Host(self.host_table::<T>(embedding)?)
            },
            layers,
            final_norm: self.loader.dense("model.norm.weight", TensorRole::Norm)?,
            head: head.then(|| self.loader.dense("lm_head.weight", TensorRole::Head)).transpose()?,
        };
        self.loader.fill(weights.places())?;
        self.loader.check_all_filled()?;
        let checkpoint = self.loader.reader.checkpoint;
        let stream = streamed
            .map(|streamed| Stream::new(self.loader.device, streamed.slots, streamed.units, checkpoint));
        Ok((weights, stream.transpose()?))
    }

    /// Ids of each group of experts.
    fn groups(&self) -> Vec<Range<usize>> {
        let experts = self.loader.reader.config.experts();
        let each = experts.div_ceil(self.placement.expert_groups.clamp(1, experts.max(1))).max(1);
        (0..experts).step_by(each).map(|first| first..experts.min(first + each)).collect()
    }

    /// A layer in one unit, or its front in one and each group of its experts in another.
    fn streamed_layer<T: Element + Target>(
        &self,
        (names, place): (LayerNames, Place),
        (groups, needs_block): (&[Range<usize>], bool),
        streamed: &mut Streamed,
    ) -> Result<LayerWeights<T>, ModelError> {
        let together = groups.len() <= 1;
        let with_layer = if together { groups } else { &[] };
        let number = streamed.units.len();
        let mut layer = self.unit(
            (streamed, place),
            || self.loader.layer(names, (with_layer, needs_block)),
            LayerWeights::add_places,
        )?;
        layer.unit = Some(number);
        if let (Block::Moe(moe), false) = (&mut layer.block, together) {
            for ids in groups {
                let number = streamed.units.len();
                let weights = self.unit(
                    (streamed, place),
                    || self.loader.experts(names, ids.clone()),
                    SwiGlu::add_places,
                )?;
                moe.experts.push(ExpertGroup { ids: ids.clone(), unit: Some(number), weights });
            }
        }
        Ok(layer)
    }

    /// Makes a part in the room of the slot whose turn it is, and keeps its bytes where they are to wait.
    fn unit<W>(
        &self,
        (streamed, place): (&mut Streamed, Place),
        make: impl FnOnce() -> Result<W, ModelError>,
        places_of: impl for<'w> Fn(&'w mut W, &mut Places<'w>),
    ) -> Result<W, ModelError> {
        let slot = streamed.units.len() % SLOTS;
        *self.loader.room.borrow_mut() = Some(streamed.slots.room(slot)?);
        let made = make();
        let room = self.loader.room.borrow_mut().take();
        let (mut made, bytes) = (made?, room.as_ref().map_or(0, moetrace_cuda::Room::taken));
        let mut places = Places::new();
        places_of(&mut made, &mut places);
        let blob = if place == Place::Disk {
            let start = room.as_ref().map_or(0, moetrace_cuda::Room::address);
            let what = "weights on disk that are quantised when they are loaded";
            let orders = self.loader.orders(&places, start).ok_or(ModelError::NotPlanned { what })?;
            Blob::Disk(Arc::new(DiskUnit { orders }))
        } else {
            self.loader.fill(places)?;
            Blob::Host(Arc::new(Pinned::copied(self.loader.device, streamed.slots.first(slot, bytes)?)?))
        };
        streamed.units.push(Unit { bytes, blob });
        Ok(made)
    }

    /// A table that stays in page-locked host memory.
    fn host_table<T: Element + Target>(&self, name: &str) -> Result<Pinned<u8>, ModelError> {
        let reader = self.loader.reader;
        let piece = reader.piece(name.to_owned());
        let origin = reader.dense(&piece, TensorRole::Embedding, T::ELEMENT)?;
        let mut table = Pinned::new(self.loader.device, origin.bytes())?;
        let chunks = table.as_mut_slice().par_chunks_mut(FILLED).enumerate();
        chunks.try_for_each(|(number, chunk)| origin.fill(reader.checkpoint, number * FILLED, chunk))?;
        Ok(table)
    }
}
