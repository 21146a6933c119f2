//! How long each stage of a queue of operations takes on the device.

use std::cell::RefCell;
use std::sync::Arc;

use cudarc::driver::sys::CUevent_flags;
use cudarc::driver::{CudaEvent, CudaStream};

use crate::{CudaError, Device};

/// Marks between operations, or nothing while it is switched off: then a mark costs no more than a look.
#[derive(Debug)]
pub struct Timeline {
    stream: Arc<CudaStream>,
    marks: RefCell<Option<Vec<(&'static str, CudaEvent)>>>,
}

impl Timeline {
    /// Switched off.
    pub fn new(device: &Device) -> Self {
        Self { stream: Arc::clone(&device.stream), marks: RefCell::new(None) }
    }

    /// Switches it on; time counts from here.
    ///
    /// # Errors
    /// [`CudaError::Driver`].
    pub fn begin(&self) -> Result<(), CudaError> {
        *self.marks.borrow_mut() = Some(Vec::new());
        self.mark("")
    }

    /// Says that what was queued since the last mark belongs to `stage`.
    ///
    /// # Errors
    /// [`CudaError::Driver`].
    pub fn mark(&self, stage: &'static str) -> Result<(), CudaError> {
        if let Some(marks) = self.marks.borrow_mut().as_mut() {
            let event = self.stream.record_event(Some(CUevent_flags::CU_EVENT_DEFAULT));
            marks.push((stage, event.map_err(CudaError::driver("timing"))?));
        }
        Ok(())
    }

    /// Switches it off, waits for the device, and gives each stage's milliseconds in all, in the order in which they
    /// first came.
    ///
    /// # Errors
    /// [`CudaError::Driver`], also for what an operation did wrong.
    pub fn end(&self) -> Result<Vec<(&'static str, f32)>, CudaError> {
        let failed = CudaError::driver("timing");
        let marks = self.marks.borrow_mut().take().unwrap_or_default();
        self.stream.synchronize().map_err(&failed)?;
        let mut stages: Vec<(&'static str, f32)> = Vec::new();
        for pair in marks.windows(2) {
            let taken = pair[0].1.elapsed_ms(&pair[1].1).map_err(&failed)?;
            match stages.iter_mut().find(|(stage, _)| *stage == pair[1].0) {
                Some((_, all)) => *all += taken,
                None => stages.push((pair[1].0, taken)),
            }
        }
        Ok(stages)
    }
}
