//! Many pieces of files or of host memory into device memory, by several threads.

mod lane;
mod plan;

use std::num::NonZero;
use std::sync::Arc;
use std::thread;

use cudarc::driver::CudaStream;

use crate::memory::DeviceId;
use crate::{CudaError, Device, SliceMut};
use lane::Lane;
use plan::{ALIGNMENT, Plan};

/// A guess: a thread copies some gigabytes a second from the page cache, and the bus takes up to 55.
const MOST_THREADS: usize = 16;

/// Threads and memory of an [`Uploader`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UploaderSettings {
    /// Threads that fill chunks; the one that calls is one of them.
    pub threads: NonZero<usize>,
    /// Bytes of a chunk, rounded up to a multiple of 256; each thread has two.
    pub chunk: NonZero<usize>,
}

impl Default for UploaderSettings {
    /// As many threads as the machine has, at most 16, and chunks of 2 MiB: a guess until `examples/upload_speed.rs` has
    /// been run. The copy of a chunk should take much longer than the call that queues it, and chunks should fit a cache.
    fn default() -> Self {
        let one = NonZero::<usize>::MIN;
        let threads =
            thread::available_parallelism().unwrap_or(one).min(one.saturating_add(MOST_THREADS - 1));
        Self { threads, chunk: one.saturating_add((2 << 20) - 1) }
    }
}

/// Brings bytes to the device through a small ring of page-locked chunks.
///
/// Each thread has a stream and two chunks. It fills one chunk while the other is being copied, so that reading and
/// copying overlap; small places share a chunk. The ring is made once and serves a whole checkpoint.
#[derive(Debug)]
pub struct Uploader {
    lanes: Vec<Lane>,
    chunk: usize,
    device: DeviceId,
}

impl Uploader {
    /// Locks the memory of all chunks and makes the streams.
    ///
    /// # Errors
    /// [`CudaError::Driver`].
    pub fn new(device: &Device, settings: UploaderSettings) -> Result<Self, CudaError> {
        let chunk = settings.chunk.get().next_multiple_of(ALIGNMENT);
        let lanes = (0..settings.threads.get()).map(|_| Lane::new(device, chunk));
        Ok(Self { lanes: lanes.collect::<Result<_, _>>()?, chunk, device: device.id })
    }

    /// Fills every place with what `fill` writes: `fill(place, start, bytes)` sets all of `bytes`, which go to place
    /// number `place` from its byte `start` on. Several threads call it at the same time; every byte of a place is asked
    /// for once, in pieces of at most a chunk, in any order. What `bytes` holds before is left from other pieces.
    ///
    /// Copies run after the operations queued so far on the device, and operations queued later run after the copies.
    /// When this returns, nothing is read any more, and the last copies may still run.
    ///
    /// # Errors
    /// The first that `fill` fails with, [`CudaError::OtherDevice`], or [`CudaError::Driver`]. Pieces that no thread has
    /// begun are then left out, and what the places hold is unknown.
    pub fn run<E: From<CudaError> + Send>(
        &mut self,
        device: &Device,
        places: &mut [SliceMut<'_, u8>],
        fill: impl Fn(usize, usize, &mut [u8]) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        if device.id != self.device {
            return Err(CudaError::OtherDevice { what: "the uploader" }.into());
        }
        for place in &*places {
            place.check("a place for an upload", place.len(), self.device)?;
        }
        let places: Vec<(u64, usize)> = places.iter().map(|place| (place.address, place.len())).collect();
        let plan = Plan::new(&places, self.chunk, fill);
        let used = self.lanes.len().min(plan.loads());
        let lanes = &mut self.lanes[..used];
        let order = Order { operations: &device.stream, copies: lanes.iter().map(Lane::stream).collect() };
        order.after_operations()?;
        thread::scope(|scope| {
            let Some((own, others)) = lanes.split_first_mut() else { return };
            for lane in others {
                // Where the system gives no thread, fewer do the work.
                let _ = thread::Builder::new().spawn_scoped(scope, || plan.work(lane));
            }
            plan.work(own);
        });
        plan.outcome()
    }
}

/// What keeps copies after the operations before them; once dropped, also where `fill` panics, operations queued later
/// run after the copies.
struct Order<'a> {
    operations: &'a CudaStream,
    copies: Vec<Arc<CudaStream>>,
}

impl Order<'_> {
    fn after_operations(&self) -> Result<(), CudaError> {
        let failed = CudaError::driver("ordering copies to the GPU");
        let queued = self.operations.record_event(None).map_err(&failed)?;
        self.copies.iter().try_for_each(|copies| copies.wait(&queued)).map_err(failed)
    }
}

impl Drop for Order<'_> {
    fn drop(&mut self) {
        for copies in &self.copies {
            if self.operations.join(copies).is_err() {
                // Then the host waits. A stream that cannot be waited for has failed and copies nothing any more.
                let _ = copies.synchronize();
            }
        }
    }
}
