//! Host memory that the GPU can copy from and to without the processor.

use std::fmt;
use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;

use cudarc::driver::{CudaContext, DeviceRepr, ValidAsZeroBits, result};

use crate::{CudaError, Device};

/// Elements in page-locked host memory, zero at first and freed when dropped.
///
/// The processor caches it, so that reading what was copied back is as fast as any other memory. Locking pages is slow,
/// and locked pages cannot be swapped: make few of these, and make them once.
pub struct Pinned<T> {
    address: NonNull<T>,
    length: usize,
    context: Arc<CudaContext>,
}

// SAFETY: it owns its memory as a `Vec` does, and any thread may free that memory.
unsafe impl<T: Send> Send for Pinned<T> {}
// SAFETY: a shared reference gives shared references to elements and nothing else.
unsafe impl<T: Sync> Sync for Pinned<T> {}

impl<T: DeviceRepr + ValidAsZeroBits> Pinned<T> {
    /// `length` zeros.
    ///
    /// # Errors
    /// [`CudaError::Driver`], above all where no so many pages can be locked.
    pub fn new(device: &Device, length: usize) -> Result<Self, CudaError> {
        let failed = CudaError::driver("allocating page-locked memory");
        let context = Arc::clone(&device.context);
        context.bind_to_thread().map_err(&failed)?;
        // The driver makes no empty allocation. An overflow asks for more than there is, and is refused.
        let bytes = length.saturating_mul(size_of::<T>()).max(1);
        // SAFETY: nothing is read before it is set. No flags: cached, not combined when written.
        let place = unsafe { result::malloc_host(bytes, 0) }.map_err(failed)?;
        // Page-locked memory begins at a page, which suits every element.
        let Some(address) = NonNull::new(place.cast::<T>()) else {
            return Err(CudaError::Value {
                what: "the address of page-locked memory",
                found: 0,
                expected: "another",
            });
        };
        // SAFETY: `bytes` bytes were allocated there; zeros are valid for `T`.
        unsafe { address.cast::<u8>().write_bytes(0, bytes) };
        Ok(Self { address, length, context })
    }
}

impl<T> Pinned<T> {
    /// Its elements.
    pub fn as_slice(&self) -> &[T] {
        // SAFETY: `length` elements lie there, all set, and writing needs the only reference.
        unsafe { slice::from_raw_parts(self.address.as_ptr(), self.length) }
    }

    /// Its elements, to be written.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        // SAFETY: `length` elements lie there, all set, and this is the only reference.
        unsafe { slice::from_raw_parts_mut(self.address.as_ptr(), self.length) }
    }
}

impl<T> Drop for Pinned<T> {
    fn drop(&mut self) {
        let bound = self.context.bind_to_thread();
        // SAFETY: allocated by `malloc_host`, and freed only here. Who lets the GPU copy from or to it waits for the
        // copy first.
        let freed = unsafe { result::free_host(self.address.as_ptr().cast()) };
        // A failure leaves memory locked, which nobody can help here.
        let _ = bound.and(freed);
    }
}

impl<T> fmt::Debug for Pinned<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} page-locked elements", self.length)
    }
}
