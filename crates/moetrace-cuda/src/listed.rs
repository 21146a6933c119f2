//! The GPUs of a machine, told without opening them where that is possible.

use cudarc::driver::result::device;
use cudarc::driver::sys::CUdevice_attribute as Attribute;
use cudarc::driver::{CudaContext, DriverError};

use crate::nvml::Nvml;
use crate::{Architecture, CudaError, Device, Driver};

/// A GPU as the driver shows it.
#[derive(Debug)]
pub struct ListedGpu {
    /// Its number, as [`Device::open`] takes it.
    pub ordinal: usize,
    /// What the driver calls it.
    pub name: String,
    /// Bytes of its memory.
    pub total: u64,
    /// Bytes that are free now, or why it cannot be used.
    pub free: Result<u64, CudaError>,
}

impl ListedGpu {
    /// All GPUs that the driver shows, in its order; none is no error. Free memory is NVML's; a GPU that NVML does not
    /// tell of is opened for a moment.
    ///
    /// # Errors
    /// [`CudaError::Driver`].
    pub fn all(driver: Driver) -> Result<Vec<Self>, CudaError> {
        let count = match CudaContext::device_count() {
            Err(error) if CudaError::is_no_device(error) => 0,
            other => other.map_err(CudaError::driver("counting GPUs"))?,
        };
        let nvml = Nvml::open();
        let one = |number| Self::one(driver, nvml.as_ref(), number);
        (0..count).map(|number| one(number).map_err(CudaError::driver("asking what GPU it is"))).collect()
    }

    fn one(driver: Driver, nvml: Option<&Nvml>, number: i32) -> Result<Self, DriverError> {
        let gpu = device::get(number)?;
        let (name, uuid) = (device::get_name(gpu)?, device::get_uuid(gpu)?);
        // SAFETY: the driver gave the device out for this number.
        let total = unsafe { device::total_mem(gpu) }? as u64;
        // SAFETY: as above.
        let attribute = |attribute| unsafe { device::get_attribute(gpu, attribute) };
        let capability = (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        );
        let ordinal = number.unsigned_abs() as usize;
        let told = nvml.and_then(|nvml| nvml.free(uuid.bytes.map(|byte| byte as u8)));
        let free = match (Architecture::of_capability(capability), told) {
            (None, _) => Err(CudaError::DeviceTooOld { name: name.clone(), found: capability }),
            (Some(_), Some(free)) => Ok(free),
            (Some(_), None) => {
                Device::open(driver, ordinal).and_then(|opened| opened.memory()).map(|(free, _)| free as u64)
            }
        };
        Ok(Self { ordinal, name, total, free })
    }
}
