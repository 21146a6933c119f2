//! Weights that take turns in a few slots of device memory, in the order in which a pass needs them.
//!
//! Units are counted by position: position p brings unit p modulo their number, pass after pass without an end, so that
//! the first units of the next pass come while the last of this one are computed with.

use std::sync::Arc;

use moetrace_cuda::{CudaError, Device, Pinned, Slots};

use super::read_ahead::{DiskUnit, ReadAhead};
use crate::ModelError;
use crate::checkpoint::Checkpoint;

/// A part of a layer that is brought in one piece.
pub(super) struct Unit {
    pub(super) bytes: usize,
    pub(super) blob: Blob,
}

/// Where a unit's bytes wait.
pub(super) enum Blob {
    Host(Arc<Pinned<u8>>),
    Disk(Arc<DiskUnit>),
}

/// All units, and the slots that they take turns in.
pub(super) struct Stream {
    slots: Slots,
    units: Vec<Unit>,
    reader: Option<ReadAhead>,
    /// The first positions that are not yet asked of the reader, queued for a copy, begun, ended.
    asked: u64,
    queued: u64,
    begun: u64,
    ended: u64,
}

impl Stream {
    /// With nothing on its way yet. `checkpoint` is opened anew for a thread that reads it.
    pub(super) fn new(
        device: &Device,
        slots: Slots,
        units: Vec<Unit>,
        checkpoint: &Checkpoint,
    ) -> Result<Self, ModelError> {
        let from_disk = units.iter().filter(|unit| matches!(unit.blob, Blob::Disk(_)));
        let reader = match from_disk.map(|unit| unit.bytes).max() {
            Some(bytes) => Some(ReadAhead::new(device, bytes, checkpoint.reopened()?)?),
            None => None,
        };
        Ok(Self { slots, units, reader, asked: 0, queued: 0, begun: 0, ended: 0 })
    }

    /// Bytes of the slots.
    pub(super) fn device_bytes(&self) -> u64 {
        self.slots.bytes()
    }

    /// Bytes of page-locked memory.
    pub(super) fn host_bytes(&self) -> u64 {
        let blobs = self.units.iter().map(|unit| match &unit.blob {
            Blob::Host(pinned) => pinned.len() as u64,
            Blob::Disk(_) => 0,
        });
        blobs.sum::<u64>() + self.reader.as_ref().map_or(0, ReadAhead::bytes)
    }

    /// Milliseconds that operations waited for copies.
    pub(super) fn waited_ms(&self) -> f64 {
        self.slots.waited_ms()
    }

    /// Makes the first unit the next one, wherever the pass before ended.
    pub(super) fn restart(&mut self) -> Result<(), ModelError> {
        let units = self.units.len() as u64;
        if self.begun.is_multiple_of(units) && self.ended == self.begun {
            return self.advance(false);
        }
        if let Some(reader) = &mut self.reader {
            reader.forget();
        }
        // Slots are free once all that the broken pass queued is done.
        for slot in 0..self.slots.len() {
            self.slots.end(slot)?;
        }
        let first = self.queued.next_multiple_of(units);
        (self.asked, self.queued, self.begun, self.ended) = (first, first, first, first);
        self.advance(false)
    }

    /// Lets operations queued from now on use a unit, which is the next one.
    pub(super) fn begin(&mut self, unit: Option<usize>) -> Result<(), ModelError> {
        let Some(unit) = unit else { return Ok(()) };
        let expected = (self.begun % self.units.len() as u64) as usize;
        if unit != expected {
            return Err(
                CudaError::Value { what: "the part of a layer", found: unit, expected: "the next" }.into()
            );
        }
        if self.ended < self.begun {
            let what = "parts of a layer that are in use";
            return Err(CudaError::Value { what, found: 2, expected: "one at a time" }.into());
        }
        while self.queued <= self.begun {
            self.advance(true)?;
        }
        self.slots.begin(self.slot(self.begun))?;
        self.begun += 1;
        Ok(())
    }

    /// Lets the unit that was begun last go, after the operations queued so far.
    pub(super) fn end(&mut self, unit: Option<usize>) -> Result<(), ModelError> {
        if unit.is_none() {
            return Ok(());
        }
        self.slots.end(self.slot(self.ended))?;
        self.ended += 1;
        self.advance(false)
    }

    /// Queues copies into slots that are free, and has read what comes after them. `waits`: for the next unit from disk,
    /// if it is not there.
    pub(super) fn advance(&mut self, mut waits: bool) -> Result<(), ModelError> {
        loop {
            self.ask()?;
            let position = self.queued;
            let slot = self.slot(position);
            let is_free = position < self.ended + self.slots.len() as u64
                && (position == 0 || self.ended >= position || self.slot(position - 1) != slot);
            if !is_free {
                return Ok(());
            }
            let unit = self.unit(position);
            let bytes = unit.bytes;
            let blob = match &unit.blob {
                Blob::Host(pinned) => Some(Arc::clone(pinned)),
                Blob::Disk(_) => match &mut self.reader {
                    Some(reader) => reader.take(position, waits)?,
                    None => None,
                },
            };
            let Some(blob) = blob else { return Ok(()) };
            self.slots.fill(slot, &blob, bytes)?;
            (self.queued, waits) = (position + 1, false);
        }
    }

    /// Asks the reader for what is on disk, as far ahead as it has room.
    fn ask(&mut self) -> Result<(), ModelError> {
        let (units, queued) = (&self.units, self.queued);
        let Some(reader) = &mut self.reader else { return Ok(()) };
        for slot in 0..self.slots.len() {
            // Lets go of what has been copied.
            if self.slots.is_copied(slot)? {
                self.slots.copied(slot)?;
            }
        }
        reader.take_back();
        self.asked = self.asked.max(queued);
        let horizon = queued + units.len() as u64;
        while reader.has_room() && self.asked < horizon {
            if let Blob::Disk(unit) = &units[(self.asked % units.len() as u64) as usize].blob {
                reader.ask(self.asked, unit);
            }
            self.asked += 1;
        }
        Ok(())
    }

    fn unit(&self, position: u64) -> &Unit {
        &self.units[(position % self.units.len() as u64) as usize]
    }

    fn slot(&self, position: u64) -> usize {
        (position % self.units.len() as u64) as usize % self.slots.len()
    }
}
