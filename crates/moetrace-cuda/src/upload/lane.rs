//! One thread's stream and chunks.

use std::sync::Arc;

use cudarc::driver::{CudaEvent, CudaStream, result};

use crate::{CudaError, Device, Pinned};

/// One is filled while the other is copied.
const CHUNKS: usize = 2;

#[derive(Debug)]
pub(super) struct Lane {
    stream: Arc<CudaStream>,
    chunks: Vec<Chunk>,
    /// The chunk whose turn it is.
    turn: usize,
}

#[derive(Debug)]
struct Chunk {
    memory: Pinned<u8>,
    /// The end of the last copy from it.
    copied: CudaEvent,
}

/// A part of a chunk and where it goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Copy {
    /// Its first byte in the chunk, and its bytes.
    pub(super) from: usize,
    pub(super) length: usize,
    /// Its address on the device.
    pub(super) to: u64,
}

impl Lane {
    pub(super) fn new(device: &Device, chunk: usize) -> Result<Self, CudaError> {
        let failed = CudaError::driver("making a stream for copies");
        let stream = device.context.new_stream().map_err(&failed)?;
        let chunks = (0..CHUNKS).map(|_| {
            let copied = device.context.new_event(None).map_err(&failed)?;
            Ok(Chunk { memory: Pinned::new(device, chunk)?, copied })
        });
        Ok(Self { stream, chunks: chunks.collect::<Result<_, CudaError>>()?, turn: 0 })
    }

    pub(super) fn stream(&self) -> Arc<CudaStream> {
        Arc::clone(&self.stream)
    }

    /// Takes the chunk whose turn it is when the last copy from it is done, lets `fill` write it, and queues its copies.
    ///
    /// # Safety
    /// So many bytes lie at the address of every copy on this lane's device, and until the lane's stream has been waited
    /// for they are neither freed nor used by anything else.
    ///
    /// # Errors
    /// Those of `fill`, [`CudaError::Driver`].
    pub(super) unsafe fn load<E: From<CudaError>>(
        &mut self,
        mut copies: impl Iterator<Item = Copy>,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let failed = CudaError::driver("copying to the GPU");
        let Chunk { memory, copied } = &mut self.chunks[self.turn];
        self.turn = (self.turn + 1) % CHUNKS;
        // Also makes the context this thread's own.
        copied.synchronize().map_err(&failed)?;
        fill(memory.as_mut_slice())?;
        let bytes = memory.as_slice();
        let stream = self.stream.cu_stream();
        // SAFETY: the caller answers for the other side; the chunk is not written or freed before `copied` or the
        // stream has been waited for.
        let queued = copies.try_for_each(|Copy { from, length, to }| unsafe {
            result::memcpy_htod_async(to, &bytes[from..][..length], stream)
        });
        let marked = copied.record(&self.stream);
        if marked.is_err() {
            // Without a mark for their end the copies must end here.
            let _ = self.stream.synchronize();
        }
        queued.and(marked).map_err(|error| failed(error).into())
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        // The chunks are freed next. A stream that cannot be waited for has failed and copies nothing any more.
        let _ = self.stream.synchronize();
    }
}
