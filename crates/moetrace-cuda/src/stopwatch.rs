//! How long the device takes between pairs of points in its queue, while the host goes on.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;

use cudarc::driver::sys::CUevent_flags;
use cudarc::driver::{CudaEvent, CudaStream};

use crate::{CudaError, Device};

/// Adds up the time between each [`begin`](Self::begin) and the [`end`](Self::end) after it.
#[derive(Debug)]
pub struct Stopwatch {
    stream: Arc<CudaStream>,
    begun: RefCell<Option<CudaEvent>>,
    /// Pairs that the device may not have reached.
    open: RefCell<VecDeque<(CudaEvent, CudaEvent)>>,
    total_ms: Cell<f64>,
}

impl Stopwatch {
    /// At zero.
    pub fn new(device: &Device) -> Self {
        let stream = Arc::clone(&device.stream);
        Self { stream, begun: RefCell::default(), open: RefCell::default(), total_ms: Cell::new(0.0) }
    }

    /// Time runs once the device has done what is queued so far.
    ///
    /// # Errors
    /// [`CudaError::Driver`].
    pub fn begin(&self) -> Result<(), CudaError> {
        *self.begun.borrow_mut() = Some(self.mark()?);
        Ok(())
    }

    /// Time stops once the device has done what is queued so far. Nothing without a beginning.
    ///
    /// # Errors
    /// [`CudaError::Driver`].
    pub fn end(&self) -> Result<(), CudaError> {
        let Some(begun) = self.begun.borrow_mut().take() else { return Ok(()) };
        self.open.borrow_mut().push_back((begun, self.mark()?));
        // Pairs do not pile up in a long pass.
        self.add_up();
        Ok(())
    }

    /// Milliseconds of all pairs that the device has passed.
    pub fn total_ms(&self) -> f64 {
        self.add_up();
        self.total_ms.get()
    }

    fn add_up(&self) {
        let mut open = self.open.borrow_mut();
        while let Some((begun, ended)) = open.front() {
            if !ended.is_complete() {
                return;
            }
            // A pair whose time cannot be told is left out: the device has failed, as its next operation will say.
            let taken = begun.elapsed_ms(ended).unwrap_or(0.0);
            self.total_ms.set(self.total_ms.get() + f64::from(taken));
            open.pop_front();
        }
    }

    fn mark(&self) -> Result<CudaEvent, CudaError> {
        let timed = Some(CUevent_flags::CU_EVENT_DEFAULT);
        self.stream.record_event(timed).map_err(CudaError::driver("timing"))
    }
}
