//! Rows that wait on the host while others are on the device.

use std::ops::Range;
use std::sync::Arc;

use cudarc::driver::{CudaEvent, CudaStream, DeviceRepr, ValidAsZeroBits, result};

use crate::{Buffer, CudaError, Device, Pinned, SliceMut, Stopwatch};

/// Places on the device: one is worked on while the one before leaves and the one after comes.
const PLACES: usize = 2;

/// Elements in page-locked memory that come to the device in chunks, are worked on and go back.
///
/// A turn is: [`bring`](Self::bring), [`begin`](Self::begin), operations on its [`place`](Self::place),
/// [`leave`](Self::leave) or [`drop_turn`](Self::drop_turn). The next turn may be brought before this one's operations are queued. Copies run beside the
/// operations and order themselves with them; the host waits for nothing.
#[derive(Debug)]
pub struct Parking<T> {
    host: Pinned<T>,
    places: Vec<Place<T>>,
    operations: Arc<CudaStream>,
    arrivals: Arc<CudaStream>,
    departures: Arc<CudaStream>,
    waits: Stopwatch,
}

#[derive(Debug)]
struct Place<T> {
    room: Buffer<T>,
    /// The end of the copy that came last.
    come: Option<CudaEvent>,
    /// The end of whatever used it last: a copy that left, or operations whose results stay.
    left: Option<CudaEvent>,
}

impl<T: DeviceRepr + ValidAsZeroBits> Parking<T> {
    /// Room for `length` elements on the host, and for chunks of at most `chunk` on the device.
    ///
    /// # Errors
    /// [`CudaError::Driver`], above all where memory runs out.
    pub fn new(device: &Device, length: usize, chunk: usize) -> Result<Self, CudaError> {
        let stream = || device.context.new_stream().map_err(CudaError::driver("making a stream for copies"));
        let place = |_| Ok(Place { room: device.zeros(chunk)?, come: None, left: None });
        Ok(Self {
            host: Pinned::new(device, length)?,
            places: (0..PLACES).map(place).collect::<Result<_, CudaError>>()?,
            operations: Arc::clone(&device.stream),
            arrivals: stream()?,
            departures: stream()?,
            waits: Stopwatch::new(device),
        })
    }
}

impl<T: DeviceRepr> Parking<T> {
    /// Bytes of page-locked memory.
    pub fn host_bytes(&self) -> u64 {
        (self.host.len() * size_of::<T>()) as u64
    }

    /// The room of a turn on the device, to be used from its `begin` to its `leave`.
    ///
    /// # Errors
    /// [`CudaError::Range`] for more elements than a chunk has.
    pub fn place(&mut self, turn: usize, length: usize) -> Result<SliceMut<'_, T>, CudaError> {
        self.places[turn % PLACES].room.part_mut(0..length)
    }

    /// Queues the copy of some elements to the turn's place, after whatever was there has left and all that left
    /// before has reached the host.
    ///
    /// # Errors
    /// [`CudaError::Range`], [`CudaError::Driver`].
    pub fn bring(&mut self, turn: usize, elements: Range<usize>) -> Result<(), CudaError> {
        let failed = CudaError::driver("bringing hidden states to the GPU");
        let length = self.host.len();
        let (start, end) = (elements.start, elements.end);
        let Some(from) = self.host.as_slice().get(elements) else {
            return Err(CudaError::Range { start, end, length });
        };
        // These very elements may have been the last to leave.
        self.arrivals.join(&self.departures).map_err(&failed)?;
        let place = &mut self.places[turn % PLACES];
        if let Some(left) = &place.left {
            self.arrivals.wait(left).map_err(&failed)?;
        }
        let to = place.room.part_mut(0..from.len())?.address;
        if from.is_empty() {
            return Ok(());
        }
        // SAFETY: `to` has as many elements as `from`, both live in `self`, whose end waits for all copies. The copy
        // that wrote `from` and whatever used `to` are waited for above.
        let copied = unsafe { result::memcpy_htod_async(to, from, self.arrivals.cu_stream()) };
        copied.map_err(&failed)?;
        place.come = Some(self.arrivals.record_event(None).map_err(failed)?);
        Ok(())
    }

    /// Lets operations queued from now on use the turn's place: they wait for what was brought, or without it for what
    /// was there before to have left. How long they wait is counted.
    ///
    /// # Errors
    /// [`CudaError::Driver`].
    pub fn begin(&mut self, turn: usize) -> Result<(), CudaError> {
        let place = &mut self.places[turn % PLACES];
        let awaited = place.come.take();
        let awaited = awaited.as_ref().or(place.left.as_ref());
        if let Some(awaited) = awaited {
            self.waits.begin()?;
            self.operations.wait(awaited).map_err(CudaError::driver("waiting for hidden states"))?;
            self.waits.end()?;
        }
        Ok(())
    }

    /// Queues the copy of the turn's place back to some elements, after the operations queued so far.
    ///
    /// # Errors
    /// [`CudaError::Range`], [`CudaError::Driver`].
    pub fn leave(&mut self, turn: usize, elements: Range<usize>) -> Result<(), CudaError> {
        let failed = CudaError::driver("bringing hidden states to the host");
        let length = self.host.len();
        let (start, end) = (elements.start, elements.end);
        let Some(to) = self.host.as_mut_slice().get_mut(elements) else {
            return Err(CudaError::Range { start, end, length });
        };
        let place = &mut self.places[turn % PLACES];
        let from = place.room.part(0..to.len())?.address;
        self.departures.join(&self.operations).map_err(&failed)?;
        if to.is_empty() {
            return Ok(());
        }
        // SAFETY: as in `bring`; operations that write `from` run before the copy, and the next ones that do wait for
        // its end. The host never looks at these elements.
        let copied = unsafe { result::memcpy_dtoh_async(to, from, self.departures.cu_stream()) };
        copied.map_err(&failed)?;
        place.left = Some(self.departures.record_event(None).map_err(failed)?);
        Ok(())
    }

    /// Ends the turn without a copy: what is in its place is not needed any more once the operations queued so far have
    /// run.
    ///
    /// # Errors
    /// [`CudaError::Driver`].
    pub fn drop_turn(&mut self, turn: usize) -> Result<(), CudaError> {
        let done = self.operations.record_event(None).map_err(CudaError::driver("ordering copies"))?;
        self.places[turn % PLACES].left = Some(done);
        Ok(())
    }

    /// Milliseconds that operations waited for copies, as far as they have run.
    pub fn waited_ms(&self) -> f64 {
        self.waits.total_ms()
    }
}

impl<T> Drop for Parking<T> {
    fn drop(&mut self) {
        // Both ends of copies are freed next. A stream that cannot be waited for copies nothing any more.
        let _ = self.arrivals.synchronize();
        let _ = self.departures.synchronize();
    }
}
