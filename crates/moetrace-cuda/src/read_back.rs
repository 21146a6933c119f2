//! Results that travel to the host while the GPU goes on.

use std::sync::Arc;

use cudarc::driver::{CudaEvent, CudaStream, DeviceRepr, ValidAsZeroBits, result};

use crate::memory::DeviceId;
use crate::{Buffer, CudaError, Device, Pinned, Slice, SliceMut};

/// Room for results on the device and the same room in page-locked host memory, with a stream of its own between them.
///
/// The order is: [`place`](Self::place), operations that write it, [`queue`](Self::queue); later [`wait`](Self::wait).
/// Between `queue` and `wait` the host may queue other work on the device, and the copy runs beside it. Two of these,
/// taken in turn, keep one pass's results on their way while the next pass computes.
///
/// Nothing can be overwritten in flight: the device's half is only given out by `place`, which makes later operations
/// wait for the copy, and the host's half only by `wait`, after the copy.
#[derive(Debug)]
pub struct ReadBack<T> {
    place: Buffer<T>,
    arrived: Pinned<T>,
    operations: Arc<CudaStream>,
    copies: Arc<CudaStream>,
    device: DeviceId,
    /// The last copy, until the host has seen it end, and its elements.
    flight: Option<CudaEvent>,
    length: usize,
}

impl<T: DeviceRepr + ValidAsZeroBits> ReadBack<T> {
    /// Room for `capacity` elements, on both sides.
    ///
    /// # Errors
    /// [`CudaError::Driver`], above all where memory runs out.
    pub fn new(device: &Device, capacity: usize) -> Result<Self, CudaError> {
        let (place, arrived) = (device.zeros(capacity)?, Pinned::new(device, capacity)?);
        let copies = device.context.new_stream().map_err(CudaError::driver("making a stream for copies"))?;
        let (operations, device) = (Arc::clone(&device.stream), device.id);
        Ok(Self { place, arrived, operations, copies, device, flight: None, length: 0 })
    }
}

impl<T: DeviceRepr> ReadBack<T> {
    /// Elements that it has room for.
    pub fn capacity(&self) -> usize {
        self.place.len()
    }

    /// The room on the device, `[capacity]`, to be written by operations queued from now on. They run after the copy
    /// that is in flight, if there is one; the host does not wait.
    ///
    /// # Errors
    /// [`CudaError::Driver`].
    pub fn place(&mut self) -> Result<SliceMut<'_, T>, CudaError> {
        if let Some(flight) = &self.flight {
            self.operations.wait(flight).map_err(CudaError::driver("waiting for a copy to the host"))?;
        }
        Ok(self.place.all_mut())
    }

    /// What operations wrote to the room on the device, to be read by later ones.
    pub fn written(&self) -> Slice<'_, T> {
        self.place.all()
    }

    /// Queues the copy of the first `length` elements, after all operations queued so far on the device.
    ///
    /// # Errors
    /// [`CudaError::Range`] for more than there is room for; [`CudaError::Driver`].
    pub fn queue(&mut self, length: usize) -> Result<(), CudaError> {
        let from = self.place.part(0..length)?;
        let failed = CudaError::driver("copying from the GPU");
        // Nothing is there to be seen if this fails.
        self.length = 0;
        self.copies.join(&self.operations).map_err(&failed)?;
        let to = &mut self.arrived.as_mut_slice()[..length];
        if !to.is_empty() {
            // SAFETY: `to` has as many elements as `from`, and both live in `self`: they are given out and freed only
            // after the copy, which `flight` marks the end of. `join` has bound the context to this thread.
            let copied = unsafe { result::memcpy_dtoh_async(to, from.address, self.copies.cu_stream()) };
            copied.map_err(&failed)?;
        }
        let recorded = self.copies.record_event(None);
        if recorded.is_err() {
            // Without a mark for its end the copy must end here.
            let _ = self.copies.synchronize();
        }
        self.flight = Some(recorded.map_err(failed)?);
        self.length = length;
        Ok(())
    }

    /// Copies what lies elsewhere on the device into the room there, and queues its copy to the host. `from` may be
    /// overwritten by operations queued afterwards.
    ///
    /// # Errors
    /// [`CudaError::Range`], [`CudaError::OtherDevice`], [`CudaError::Driver`].
    pub fn queue_from(&mut self, device: &Device, from: Slice<'_, T>) -> Result<(), CudaError> {
        from.check("what is read back", from.len(), self.device)?;
        let mut place = self.place()?;
        device.copy(from, &mut place.part_mut(0..from.len())?)?;
        self.queue(from.len())
    }

    /// Blocks this thread until the last queued copy is done, and shows what it brought; nothing where none was queued.
    ///
    /// # Errors
    /// [`CudaError::Driver`], also for what an earlier operation did wrong.
    pub fn wait(&mut self) -> Result<&[T], CudaError> {
        if let Some(flight) = &self.flight {
            flight.synchronize().map_err(CudaError::driver("waiting for a copy to the host"))?;
            self.flight = None;
        }
        Ok(&self.arrived.as_slice()[..self.length])
    }
}

impl<T> Drop for ReadBack<T> {
    fn drop(&mut self) {
        // A stream that cannot be waited for has failed and copies nothing any more.
        let _ = self.copies.synchronize();
    }
}
