//! Device memory whose contents come from the host while operations use what came before.

use std::sync::Arc;

use cudarc::driver::{CudaEvent, CudaSlice, CudaStream, DevicePtr as _, DeviceRepr, result};

use crate::memory::DeviceId;
use crate::{Buffer, CudaError, Device, Pinned, Slice, Stopwatch};

/// Buffers begin at multiples of so many bytes, the strictest alignment that any operation asks for.
const ALIGNMENT: usize = 256;

/// Bytes that are copied at a time. The engine for copies takes whole ones in turn from all queues: hidden states must
/// not wait for all weights of a layer. 8 MiB take 0.15 ms at 55 GB/s, far longer than it takes to queue them.
const PIECE: usize = 8 << 20;

/// Some slots of equal size and a queue of copies into them, beside the operations.
///
/// The order for a slot is: [`fill`](Self::fill), [`begin`](Self::begin), operations on its buffers,
/// [`end`](Self::end), and again. A copy waits for the operations before the last `end`, operations after `begin` wait for
/// the copy; the host waits for neither.
#[derive(Debug)]
pub struct Slots {
    each: Vec<Slot>,
    operations: Arc<CudaStream>,
    copies: Arc<CudaStream>,
    device: DeviceId,
    waits: Stopwatch,
}

#[derive(Debug)]
struct Slot {
    memory: Arc<CudaSlice<u8>>,
    address: u64,
    bytes: usize,
    /// The end of the last copy into it, and what was copied.
    filled: Option<(CudaEvent, Arc<Pinned<u8>>)>,
    /// The end of the operations that used it last.
    emptied: Option<CudaEvent>,
}

impl Slots {
    /// So many slots of so many bytes each.
    ///
    /// # Errors
    /// [`CudaError::Driver`], above all where memory runs out.
    pub fn new(device: &Device, slots: usize, bytes: usize) -> Result<Self, CudaError> {
        let copies = device.context.new_stream().map_err(CudaError::driver("making a stream for copies"))?;
        let slot = |_| {
            let memory =
                device.stream.alloc_zeros::<u8>(bytes.max(1)).map_err(CudaError::driver("allocating"))?;
            let (address, _) = memory.device_ptr(&device.stream);
            Ok(Slot { memory: Arc::new(memory), address, bytes, filled: None, emptied: None })
        };
        let each = (0..slots).map(slot).collect::<Result<_, CudaError>>()?;
        let operations = Arc::clone(&device.stream);
        Ok(Self { each, operations, copies, device: device.id, waits: Stopwatch::new(device) })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.each.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.each.is_empty()
    }

    /// Bytes of all slots.
    pub fn bytes(&self) -> u64 {
        self.each.iter().map(|slot| slot.bytes as u64).sum()
    }

    /// A slot to be cut into buffers, from its beginning. Buffers of several rooms of a slot lie over each other: whose
    /// contents they have is for the caller to know.
    ///
    /// # Errors
    /// [`CudaError::Range`] where there is no such slot.
    pub fn room(&self, slot: usize) -> Result<Room, CudaError> {
        let Slot { memory, address, bytes, .. } = self.slot(slot)?;
        Ok(Room {
            memory: Arc::clone(memory),
            address: *address,
            bytes: *bytes,
            taken: 0,
            device: self.device,
        })
    }

    /// The first `bytes` of a slot.
    ///
    /// # Errors
    /// [`CudaError::Range`] for more than there are, or no such slot.
    pub fn first(&self, slot: usize, bytes: usize) -> Result<Slice<'_, u8>, CudaError> {
        let Slot { address, bytes: length, .. } = self.slot(slot)?;
        Slice::new(*address, *length, self.device).part(0..bytes)
    }

    /// Queues a copy of the first `bytes` of `from` to the slot's beginning.
    ///
    /// # Errors
    /// [`CudaError::Range`] for more than it has room for, or no such slot; [`CudaError::Driver`].
    pub fn fill(&mut self, slot: usize, from: &Arc<Pinned<u8>>, bytes: usize) -> Result<(), CudaError> {
        let failed = CudaError::driver("copying weights to the GPU");
        let to = self.first(slot, bytes)?.address;
        let Some(part) = from.as_slice().get(..bytes) else {
            return Err(CudaError::Range { start: 0, end: bytes, length: from.len() });
        };
        self.copied(slot)?;
        let copies = &self.copies;
        if let Some(emptied) = self.each[slot].emptied.take() {
            copies.wait(&emptied).map_err(&failed)?;
        }
        copies.context().bind_to_thread().map_err(&failed)?;
        // SAFETY: a piece of `part` goes to where as many bytes of the slot are. Both live until the copies have ended:
        // `filled` holds the one, this type the other, and its end waits for all copies. Operations on the slot wait in
        // `begin`.
        let copied = part.chunks(PIECE).enumerate().try_for_each(|(number, piece)| unsafe {
            result::memcpy_htod_async(to + (number * PIECE) as u64, piece, copies.cu_stream())
        });
        let marked = copies.record_event(None);
        if copied.is_err() || marked.is_err() {
            // Without a mark for its end the copy must end here.
            let _ = copies.synchronize();
        }
        copied.map_err(&failed)?;
        self.each[slot].filled = Some((marked.map_err(failed)?, Arc::clone(from)));
        Ok(())
    }

    /// Whether what was queued for the slot has been read, so that its source may change. Nothing queued has been.
    ///
    /// # Errors
    /// [`CudaError::Range`].
    pub fn is_copied(&self, slot: usize) -> Result<bool, CudaError> {
        Ok(self.slot(slot)?.filled.as_ref().is_none_or(|(filled, _)| filled.is_complete()))
    }

    /// Waits, on the host, until what was queued for the slot has been read.
    ///
    /// # Errors
    /// [`CudaError::Range`], [`CudaError::Driver`].
    pub fn copied(&mut self, slot: usize) -> Result<(), CudaError> {
        self.slot(slot)?;
        if let Some((filled, _source)) = self.each[slot].filled.take() {
            filled.synchronize().map_err(CudaError::driver("waiting for a copy to the GPU"))?;
        }
        Ok(())
    }

    /// Lets operations queued from now on wait for what was last queued for the slot. How long they wait is counted.
    ///
    /// # Errors
    /// [`CudaError::Range`], [`CudaError::Driver`].
    pub fn begin(&mut self, slot: usize) -> Result<(), CudaError> {
        self.slot(slot)?;
        if let Some((filled, _)) = &self.each[slot].filled {
            self.waits.begin()?;
            self.operations.wait(filled).map_err(CudaError::driver("waiting for a copy to the GPU"))?;
            self.waits.end()?;
        }
        Ok(())
    }

    /// Lets copies queued from now on wait for the operations queued so far.
    ///
    /// # Errors
    /// [`CudaError::Range`], [`CudaError::Driver`].
    pub fn end(&mut self, slot: usize) -> Result<(), CudaError> {
        self.slot(slot)?;
        let emptied = self.operations.record_event(None).map_err(CudaError::driver("ordering copies"))?;
        self.each[slot].emptied = Some(emptied);
        Ok(())
    }

    /// Milliseconds that operations waited for copies, as far as they have run.
    pub fn waited_ms(&self) -> f64 {
        self.waits.total_ms()
    }

    fn slot(&self, slot: usize) -> Result<&Slot, CudaError> {
        let length = self.each.len();
        self.each.get(slot).ok_or(CudaError::Range { start: slot, end: slot + 1, length })
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        // What is copied is freed next. A stream that cannot be waited for has failed and copies nothing any more.
        let _ = self.copies.synchronize();
    }
}

/// A slot that is being cut into buffers.
#[derive(Debug)]
pub struct Room {
    memory: Arc<CudaSlice<u8>>,
    address: u64,
    bytes: usize,
    taken: usize,
    device: DeviceId,
}

impl Room {
    /// The next buffer, of so many elements; what it holds is what lies there.
    ///
    /// # Errors
    /// [`CudaError::Range`] where there is no room for it.
    pub fn cut<T: DeviceRepr>(&mut self, length: usize) -> Result<Buffer<T>, CudaError> {
        let start = self.taken.next_multiple_of(ALIGNMENT);
        let end = start.saturating_add(length.saturating_mul(size_of::<T>()));
        if end > self.bytes {
            return Err(CudaError::Range { start, end, length: self.bytes });
        }
        self.taken = end;
        Ok(Buffer::shared(Arc::clone(&self.memory), self.address + start as u64, length, self.device))
    }

    /// Bytes from its beginning to the end of the last buffer.
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// Where it begins on the device.
    pub fn address(&self) -> u64 {
        self.address
    }
}
