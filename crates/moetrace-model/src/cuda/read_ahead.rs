//! Weights that are read from the checkpoint's files in every pass, by a thread of its own, ahead of their turn.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::{Builder, JoinHandle};

use moetrace_cuda::{CudaError, Device, Pinned};
use rayon::prelude::*;

use super::origin::Origin;
use crate::ModelError;
use crate::checkpoint::Checkpoint;

/// Units in page-locked memory: one is read while the one before is copied to the device.
pub(super) const STAGES: usize = 2;

/// Bytes that a thread reads at a time.
const READ: usize = 2 << 20;

/// Where the bytes of a unit come from, each list from its first byte on.
#[derive(Debug)]
pub(super) struct DiskUnit {
    pub(super) orders: Vec<(usize, Vec<Origin>)>,
}

/// What has been read.
type Read = (Pinned<u8>, Result<(), ModelError>);

/// Reads units in the order in which it is asked.
pub(super) struct ReadAhead {
    requests: Option<Sender<(Arc<DiskUnit>, Pinned<u8>)>>,
    arrived: Receiver<Read>,
    thread: Option<JoinHandle<()>>,
    free: Vec<Pinned<u8>>,
    /// Positions that were asked for and not taken.
    asked: VecDeque<u64>,
    /// What was handed out to be copied.
    lent: Vec<Arc<Pinned<u8>>>,
    bytes: u64,
}

impl ReadAhead {
    /// With room for units of so many bytes.
    pub(super) fn new(device: &Device, bytes: usize, checkpoint: Checkpoint) -> Result<Self, ModelError> {
        let free = (0..STAGES).map(|_| Pinned::new(device, bytes)).collect::<Result<Vec<_>, CudaError>>()?;
        let (requests, asked) = channel::<(Arc<DiskUnit>, Pinned<u8>)>();
        let (deliver, arrived) = channel();
        let work = move || {
            while let Ok((unit, mut stage)) = asked.recv() {
                let read = unit.read(&checkpoint, stage.as_mut_slice());
                if deliver.send((stage, read)).is_err() {
                    return;
                }
            }
        };
        let thread = Builder::new().name("weight-reader".to_owned()).spawn(work);
        let path = || std::path::PathBuf::from("a thread that reads weights");
        let thread = Some(thread.map_err(|source| ModelError::Io { path: path(), source })?);
        let (asked, lent) = (VecDeque::new(), Vec::new());
        let bytes = (STAGES * bytes) as u64;
        Ok(Self { requests: Some(requests), arrived, thread, free, asked, lent, bytes })
    }

    /// Bytes of page-locked memory.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether another unit can be asked for.
    pub(super) fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// Takes back what nobody copies from any more.
    pub(super) fn take_back(&mut self) {
        for stage in std::mem::take(&mut self.lent) {
            match Arc::try_unwrap(stage) {
                Ok(stage) => self.free.push(stage),
                Err(stage) => self.lent.push(stage),
            }
        }
    }

    /// Begins to read what is copied at that position.
    pub(super) fn ask(&mut self, position: u64, unit: &Arc<DiskUnit>) {
        if let (Some(stage), Some(requests)) = (self.free.pop(), &self.requests)
            && requests.send((Arc::clone(unit), stage)).is_ok()
        {
            self.asked.push_back(position);
        }
    }

    /// What was read for that position; `None` if it is not there yet, unless it is waited for.
    pub(super) fn take(&mut self, position: u64, waits: bool) -> Result<Option<Arc<Pinned<u8>>>, ModelError> {
        if self.asked.front() != Some(&position) {
            return Ok(None);
        }
        let arrived = if waits {
            self.arrived.recv().map_err(|_| gone())?
        } else {
            match self.arrived.try_recv() {
                Ok(arrived) => arrived,
                Err(TryRecvError::Empty) => return Ok(None),
                Err(TryRecvError::Disconnected) => return Err(gone()),
            }
        };
        self.asked.pop_front();
        let (stage, read) = arrived;
        if let Err(error) = read {
            self.free.push(stage);
            return Err(error);
        }
        let stage = Arc::new(stage);
        self.lent.push(Arc::clone(&stage));
        Ok(Some(stage))
    }

    /// Forgets what was asked for and not taken.
    pub(super) fn forget(&mut self) {
        for _ in 0..self.asked.len() {
            let Ok((stage, _)) = self.arrived.recv() else { return };
            self.free.push(stage);
        }
        self.asked.clear();
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // It panicked; what that spoiled has been told by `take`.
            let _ = thread.join();
        }
    }
}

/// The thread ended before it was told to.
fn gone() -> ModelError {
    let source = std::io::Error::other("the thread that reads weights is gone");
    ModelError::Io { path: std::path::PathBuf::from("weights"), source }
}

impl DiskUnit {
    /// Sets the bytes of the unit, by several threads.
    fn read(&self, checkpoint: &Checkpoint, out: &mut [u8]) -> Result<(), ModelError> {
        let mut pieces = Vec::new();
        let (mut rest, mut at) = (out, 0);
        let mut orders: Vec<&(usize, Vec<Origin>)> = self.orders.iter().collect();
        orders.sort_unstable_by_key(|(start, _)| *start);
        for (start, origins) in orders {
            for (number, origin) in origins.iter().enumerate() {
                let gap = if number == 0 { start - at } else { 0 };
                let missing = || CudaError::Range { start: *start, end: start + origin.bytes(), length: at };
                let (_, behind) = rest.split_at_mut_checked(gap).ok_or_else(missing)?;
                let (place, behind) = behind.split_at_mut_checked(origin.bytes()).ok_or_else(missing)?;
                rest = behind;
                at += gap + origin.bytes();
                let chunks = place.chunks_mut(READ).enumerate();
                pieces.extend(chunks.map(|(number, chunk)| (origin, number * READ, chunk)));
            }
        }
        pieces.into_par_iter().try_for_each(|(origin, start, chunk)| origin.fill(checkpoint, start, chunk))
    }
}
