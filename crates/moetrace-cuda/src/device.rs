//! One GPU, its memory and its queue of operations.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cudarc::driver::sys::{CUdevice_attribute, CUevent_flags};
use cudarc::driver::{CudaContext, CudaStream, DevicePtr as _, DeviceRepr, ValidAsZeroBits, result};

use crate::memory::DeviceId;
use crate::{Architecture, Buffer, CudaError, Driver, Slice, SliceMut};

/// An opened GPU with one stream.
pub struct Device {
    pub(crate) context: Arc<CudaContext>,
    pub(crate) stream: Arc<CudaStream>,
    pub(crate) id: DeviceId,
    name: String,
    capability: (i32, i32),
    architecture: Architecture,
    multiprocessors: u32,
}

impl Device {
    /// GPUs that the driver shows.
    ///
    /// # Errors
    /// [`CudaError::Driver`], also where the driver finds no GPU at all.
    pub fn count(_: Driver) -> Result<usize, CudaError> {
        let count = CudaContext::device_count().map_err(CudaError::driver("counting GPUs"))?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    /// Opens a GPU by its number.
    ///
    /// # Errors
    /// [`CudaError::NoSuchDevice`], [`CudaError::DeviceTooOld`], [`CudaError::Driver`].
    pub fn open(driver: Driver, ordinal: usize) -> Result<Self, CudaError> {
        static OPENED: AtomicU64 = AtomicU64::new(0);
        let found = Self::count(driver)?;
        if ordinal >= found {
            return Err(CudaError::NoSuchDevice { ordinal, found });
        }
        let failed = CudaError::driver("opening the GPU");
        let context = CudaContext::new(ordinal).map_err(&failed)?;
        let name = context.name().map_err(&failed)?;
        let capability = context.compute_capability().map_err(&failed)?;
        let Some(architecture) = Architecture::of_capability(capability) else {
            return Err(CudaError::DeviceTooOld { name, found: capability });
        };
        let attribute = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
        let multiprocessors = context.attribute(attribute).map_err(&failed)?.unsigned_abs().max(1);
        // SAFETY: events order uses of a buffer by several streams. Buffers of this device are made, used and freed
        // on its one stream, which nobody else is given, and launchers refuse buffers of another device. `ReadBack`,
        // `Uploader`, `Slots` and `Parking` copy on other streams, with events of their own before and after.
        unsafe { context.disable_event_tracking() };
        let stream = context.new_stream().map_err(&failed)?;
        let id = DeviceId(OPENED.fetch_add(1, Ordering::Relaxed));
        Ok(Self { context, stream, id, name, capability, architecture, multiprocessors })
    }

    /// What the driver calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its compute capability, major and minor.
    pub fn capability(&self) -> (i32, i32) {
        self.capability
    }

    /// What kernels are compiled for.
    pub fn architecture(&self) -> Architecture {
        self.architecture
    }

    /// Its multiprocessors.
    pub fn multiprocessors(&self) -> u32 {
        self.multiprocessors
    }

    /// Bytes of its memory, free and in all.
    ///
    /// # Errors
    /// [`CudaError::Driver`].
    pub fn memory(&self) -> Result<(usize, usize), CudaError> {
        self.context.mem_get_info().map_err(CudaError::driver("asking for free memory"))
    }

    /// A buffer of zeros.
    ///
    /// # Errors
    /// [`CudaError::Driver`], above all where memory runs out.
    pub fn zeros<T: DeviceRepr + ValidAsZeroBits>(&self, length: usize) -> Result<Buffer<T>, CudaError> {
        // The driver makes no empty allocation.
        let memory = self.stream.alloc_zeros(length.max(1)).map_err(CudaError::driver("allocating"))?;
        let (address, _) = memory.device_ptr(&self.stream);
        Ok(Buffer::new(memory, address, length, self.id))
    }

    /// A buffer without elements, which takes no memory: what stands in the place of another while that is given back.
    pub fn nothing<T>(&self) -> Buffer<T> {
        Buffer::empty(self.id)
    }

    /// A buffer with these values; returns when they have been read.
    ///
    /// # Errors
    /// As [`zeros`](Self::zeros).
    pub fn upload<T: DeviceRepr + ValidAsZeroBits>(&self, values: &[T]) -> Result<Buffer<T>, CudaError> {
        let mut buffer = self.zeros(values.len())?;
        self.write(values, &mut buffer.all_mut())?;
        Ok(buffer)
    }

    /// Writes values into a buffer; returns when they are there.
    ///
    /// # Errors
    /// [`CudaError::Length`], [`CudaError::OtherDevice`], [`CudaError::Driver`].
    pub fn write<T: DeviceRepr>(&self, values: &[T], to: &mut SliceMut<'_, T>) -> Result<(), CudaError> {
        to.check("the place for host values", values.len(), self.id)?;
        if values.is_empty() {
            return Ok(());
        }
        let failed = CudaError::driver("copying to the GPU");
        self.context.bind_to_thread().map_err(&failed)?;
        // SAFETY: `to` has exactly as many elements, is borrowed for writing, and `values` outlive the copy, which
        // has ended when `synchronise` returns.
        let copied = unsafe { result::memcpy_htod_async(to.address, values, self.stream.cu_stream()) };
        let waited = self.synchronise();
        copied.map_err(failed)?;
        waited
    }

    /// The values of a buffer, when all operations queued so far are done.
    ///
    /// # Errors
    /// [`CudaError::OtherDevice`]; [`CudaError::Driver`], also for what an earlier operation did wrong.
    pub fn download<T: DeviceRepr + Copy + Default>(&self, from: Slice<'_, T>) -> Result<Vec<T>, CudaError> {
        from.check("what is copied to the host", from.len(), self.id)?;
        let mut values = vec![T::default(); from.len()];
        if values.is_empty() {
            return Ok(values);
        }
        let failed = CudaError::driver("copying from the GPU");
        self.context.bind_to_thread().map_err(&failed)?;
        // SAFETY: `values` has exactly as many elements and is not touched before `synchronise` has returned.
        let copied = unsafe { result::memcpy_dtoh_async(&mut values, from.address, self.stream.cu_stream()) };
        let waited = self.synchronise();
        copied.map_err(failed)?;
        waited?;
        Ok(values)
    }

    /// Copies within the device.
    ///
    /// # Errors
    /// [`CudaError::Length`], [`CudaError::OtherDevice`], [`CudaError::Driver`].
    pub fn copy<T: DeviceRepr>(&self, from: Slice<'_, T>, to: &mut SliceMut<'_, T>) -> Result<(), CudaError> {
        from.check("what is copied", to.len(), self.id)?;
        to.check("the place for a copy", from.len(), self.id)?;
        let failed = CudaError::driver("copying on the GPU");
        self.context.bind_to_thread().map_err(&failed)?;
        let bytes = from.len() * size_of::<T>();
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: both have so many bytes, and since `to` is borrowed for writing they do not overlap.
        unsafe { result::memcpy_dtod_async(to.address, from.address, bytes, self.stream.cu_stream()) }
            .map_err(failed)
    }

    /// Waits until all operations queued so far are done.
    ///
    /// # Errors
    /// [`CudaError::Driver`], also for what an earlier operation did wrong.
    pub fn synchronise(&self) -> Result<(), CudaError> {
        self.stream.synchronize().map_err(CudaError::driver("waiting for the GPU"))
    }

    /// Milliseconds on the device between the first and the last of the operations that `queue` queues.
    ///
    /// # Errors
    /// Those of `queue`; [`CudaError::Driver`].
    pub fn time(&self, queue: impl FnOnce() -> Result<(), CudaError>) -> Result<f32, CudaError> {
        let failed = CudaError::driver("timing");
        let timed = Some(CUevent_flags::CU_EVENT_DEFAULT);
        let begun = self.stream.record_event(timed).map_err(&failed)?;
        queue()?;
        let ended = self.stream.record_event(timed).map_err(&failed)?;
        ended.synchronize().map_err(&failed)?;
        begun.elapsed_ms(&ended).map_err(failed)
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.architecture)
    }
}
