//! Host memory that the GPU can copy from and to without the processor.

use std::fmt;
use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;

use cudarc::driver::{CudaContext, DeviceRepr, ValidAsZeroBits, result};

use crate::error::PAGE_LOCKING;
use crate::{CudaError, Device, Element, Slice};

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
        let pinned = Self::unset(device, length)?;
        // SAFETY: so many elements were allocated there; zeros are valid for `T`.
        unsafe { pinned.address.write_bytes(0, length) };
        Ok(pinned)
    }

    /// A copy of device memory, made when all operations queued so far are done.
    ///
    /// # Errors
    /// [`CudaError::OtherDevice`], [`CudaError::Driver`].
    pub fn copied(device: &Device, from: Slice<'_, T>) -> Result<Self, CudaError> {
        from.check("what is copied to the host", from.len(), device.id)?;
        let pinned = Self::unset(device, from.len())?;
        if from.is_empty() {
            return Ok(pinned);
        }
        let failed = CudaError::driver("copying from the GPU");
        // SAFETY: both sides have so many elements, and nobody looks at the copy before it has ended.
        let copied = unsafe {
            let to = slice::from_raw_parts_mut(pinned.address.as_ptr(), pinned.length);
            result::memcpy_dtoh_async(to, from.address, device.stream.cu_stream())
        };
        let waited = device.synchronise();
        copied.map_err(failed)?;
        waited?;
        Ok(pinned)
    }

    /// Memory that is to be set before anybody looks at it.
    fn unset(device: &Device, length: usize) -> Result<Self, CudaError> {
        let failed = CudaError::driver(PAGE_LOCKING);
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
        Ok(Self { address, length, context })
    }
}

impl Pinned<u8> {
    /// The same memory as elements that operations read where they are, over the bus: on every 64-bit system the GPU
    /// knows page-locked memory by the processor's addresses.
    ///
    /// # Errors
    /// [`CudaError::Length`] where its bytes are no whole number of elements.
    pub fn elements<T: Element>(&self, device: &Device) -> Result<Slice<'_, T>, CudaError> {
        if !self.length.is_multiple_of(size_of::<T>()) {
            let (found, expected) = (self.length, self.length.next_multiple_of(size_of::<T>()));
            return Err(CudaError::Length { what: "page-locked elements", found, expected });
        }
        Ok(Slice::new(self.address.as_ptr() as u64, self.length / size_of::<T>(), device.id))
    }
}

impl<T> Pinned<T> {
    /// Its elements in all.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
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
