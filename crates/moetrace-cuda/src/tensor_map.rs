//! How Hopper's copy engine finds boxes of a matrix.

use std::ffi::{c_char, c_void};

use cudarc::driver::DeviceRepr;
use cudarc::driver::sys::{
    CUtensorMap, CUtensorMapFloatOOBfill, CUtensorMapInterleave, CUtensorMapL2promotion, CUtensorMapSwizzle,
    cuTensorMapEncodeTiled, culib,
};

use crate::{CudaError, Element, Slice};

/// Columns of a box: 128 bytes of 16-bit elements, the widest row that the swizzle takes.
pub(crate) const BOX_COLUMNS: u32 = 64;

/// A map of a matrix for kernels that take it by value. It holds an address: whoever launches keeps the matrix alive
/// until the launch is queued.
#[repr(transparent)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct TensorMap(CUtensorMap);

// SAFETY: 128 bytes without padding or pointers to the host, made to be handed to kernels by value.
unsafe impl DeviceRepr for TensorMap {}

impl TensorMap {
    /// Boxes of `box_rows` by [`BOX_COLUMNS`] of 16-bit `matrix`, `[rows, columns]`, with the 128-byte swizzle; what
    /// lies outside the matrix is read as zeros. It begins at a multiple of 16 bytes, `columns` is a multiple of
    /// eight. Encoding takes about a microsecond of the host and none of the device.
    ///
    /// # Errors
    /// [`CudaError::Unsupported`] for a driver older than CUDA 12, [`CudaError::Driver`] where it refuses the shape.
    pub(crate) fn new<T: Element>(
        matrix: Slice<'_, T>,
        (rows, columns): (usize, usize),
        box_rows: u32,
    ) -> Result<Self, CudaError> {
        // SAFETY: a context is open, since the matrix lies on a device; so the library is loaded. The symbol is only
        // looked for here: cudarc would panic where it is missing.
        let known = unsafe { culib().get::<*const c_char>(b"cuTensorMapEncodeTiled\0") };
        if known.is_err() {
            return Err(CudaError::Unsupported {
                what: "a tensor map",
                needs: "a driver of CUDA 12 or newer",
            });
        }
        let mut map = Self(CUtensorMap { opaque: [0; 16] });
        let (dimensions, boxes) = ([columns as u64, rows as u64], [BOX_COLUMNS, box_rows]);
        let (strides, steps) = ([(columns * size_of::<T>()) as u64], [1u32; 2]);
        // SAFETY: two dimensions, so two sizes, two sides of a box, two steps, and one stride: the arrays are that
        // long. The address is only written down.
        let status = unsafe {
            cuTensorMapEncodeTiled(
                &raw mut map.0,
                T::TENSOR,
                2,
                matrix.address as *mut c_void,
                dimensions.as_ptr(),
                strides.as_ptr(),
                boxes.as_ptr(),
                steps.as_ptr(),
                CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
                CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        };
        status.result().map_err(CudaError::driver("describing a matrix to the copy engine"))?;
        Ok(map)
    }
}
