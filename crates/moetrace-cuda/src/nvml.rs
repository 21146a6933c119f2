//! Free memory of GPUs that are not opened, from NVIDIA's management library where it is there.
//!
//! It numbers GPUs in an order of its own and shows those that `CUDA_VISIBLE_DEVICES` hides, so a GPU is asked for by its
//! UUID, never by its number.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::ptr::null_mut;

use libloading::Library;

/// What the library answers to a call that worked.
const SUCCESS: c_int = 0;

type Init = unsafe extern "C" fn() -> c_int;
type HandleByUuid = unsafe extern "C" fn(*const c_char, *mut *mut c_void) -> c_int;
type DriverVersion = unsafe extern "C" fn(*mut c_char, c_uint) -> c_int;
type MemoryInfo = unsafe extern "C" fn(*mut c_void, *mut Memory) -> c_int;

/// `nvmlMemory_t`, all in bytes.
#[repr(C)]
#[derive(Default)]
struct Memory {
    total: u64,
    free: u64,
    used: u64,
}

/// The library, initialised.
pub(crate) struct Nvml(Library);

impl Nvml {
    /// Loads it; `None` where it is missing or does not start. It comes with the driver.
    pub(crate) fn open() -> Option<Self> {
        // SAFETY: runs the library's initialisers, which NVIDIA's libraries are made for.
        let library = unsafe { Library::new("libnvidia-ml.so.1") }.ok()?;
        // SAFETY: the type is that of `nvmlInit_v2(void)` in NVIDIA's header.
        let init = unsafe { library.get::<Init>(b"nvmlInit_v2\0") }.ok()?;
        // SAFETY: takes nothing; may be called any number of times.
        (unsafe { init() } == SUCCESS).then_some(())?;
        Some(Self(library))
    }

    /// The driver's release, as `580.159.04`.
    pub(crate) fn driver_release(&self) -> Option<String> {
        // SAFETY: the type is that of `nvmlSystemGetDriverVersion(char *, unsigned int)`.
        let told = unsafe { self.0.get::<DriverVersion>(b"nvmlSystemGetDriverVersion\0") }.ok()?;
        // `NVML_SYSTEM_DRIVER_VERSION_BUFFER_SIZE`.
        let mut text = [0u8; 80];
        // SAFETY: there is room for so many bytes, the zero byte at the end included.
        let status = unsafe { told(text.as_mut_ptr().cast(), text.len() as c_uint) };
        (status == SUCCESS).then_some(())?;
        Some(CStr::from_bytes_until_nul(&text).ok()?.to_string_lossy().into_owned())
    }

    /// Bytes of a GPU's memory that are free, all processes counted; `None` where it does not tell.
    pub(crate) fn free(&self, uuid: [u8; 16]) -> Option<u64> {
        // A part of a GPU (MIG) has a UUID of its own under another prefix.
        ["GPU", "MIG"]
            .into_iter()
            .find_map(|prefix| self.free_by_name(&format!("{prefix}-{}", hyphened(uuid))))
    }

    fn free_by_name(&self, name: &str) -> Option<u64> {
        let name = CString::new(name).ok()?;
        // SAFETY: the type is that of `nvmlDeviceGetHandleByUUID(const char *, nvmlDevice_t *)`.
        let handle_by_uuid = unsafe { self.0.get::<HandleByUuid>(b"nvmlDeviceGetHandleByUUID\0") }.ok()?;
        // SAFETY: the type is that of `nvmlDeviceGetMemoryInfo(nvmlDevice_t, nvmlMemory_t *)`, the first version.
        let memory_info = unsafe { self.0.get::<MemoryInfo>(b"nvmlDeviceGetMemoryInfo\0") }.ok()?;
        let mut handle = null_mut();
        // SAFETY: `name` ends with a zero byte, and there is a place for one handle.
        (unsafe { handle_by_uuid(name.as_ptr(), &raw mut handle) } == SUCCESS).then_some(())?;
        let mut memory = Memory::default();
        // SAFETY: the handle is the library's own, and `memory` has the layout of `nvmlMemory_t`.
        (unsafe { memory_info(handle, &raw mut memory) } == SUCCESS).then_some(memory.free)
    }
}

impl Drop for Nvml {
    fn drop(&mut self) {
        // SAFETY: the type is that of `nvmlShutdown(void)`.
        if let Ok(shutdown) = unsafe { self.0.get::<Init>(b"nvmlShutdown\0") } {
            // SAFETY: the library was initialised once by us; no handle of ours is used any more.
            unsafe { shutdown() };
        }
    }
}

/// As NVIDIA writes it: 8, 4, 4, 4 and 12 hex digits.
fn hyphened(uuid: [u8; 16]) -> String {
    let digits: Vec<String> = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
    [0..4, 4..6, 6..8, 8..10, 10..16].map(|range| digits[range].concat()).join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_written_as_nvidia_writes_it() {
        let uuid = std::array::from_fn(|i| (17 * i) as u8);
        assert_eq!(hyphened(uuid), "00112233-4455-6677-8899-aabbccddeeff");
    }
}
