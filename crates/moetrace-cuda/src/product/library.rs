//! Products by cuBLASLt, each with one algorithm for any number of rows.
//!
//! The library's matrices are column-major. Its A is the weight `[N, K]` taken transposed, its B is x, and its D is
//! out, each seen from the other side: D `[N, M]` = A^T B.

use std::ffi::c_void;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use cudarc::cublaslt::result::CublasError;
use cudarc::cublaslt::{result, sys};
use cudarc::driver::CudaStream;

use super::{ProductShape, checked_rows};
use crate::memory::DeviceId;
use crate::{Buffer, CublasLt, CudaError, Device, Element, Slice, SliceMut};

/// Algorithms that are asked for, to find one that fits among them.
const ASKED: usize = 64;
/// Rows at which an algorithm must work to be chosen, whatever the usual number.
const TRIED_ROWS: [u64; 6] = [1, 7, 64, 960, 20_000, 65_536];
/// Bytes of scratch that an algorithm may use: a counter by which its blocks share out tiles takes 4 (seen with cuBLAS
/// 13.0 on an H200 from some two waves of tiles on), sums of parts of the inner dimension at least 16 thousand.
const WORKSPACE: usize = 4096;
/// Strictest alignment that the library tells algorithms apart by, in bytes.
const ALIGNMENT: usize = 256;

/// A place for an answer.
const NOTHING: sys::cublasLtMatmulHeuristicResult_t = sys::cublasLtMatmulHeuristicResult_t {
    algo: sys::cublasLtMatmulAlgo_t { data: [0; 8] },
    workspaceSize: 0,
    state: sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED,
    wavesCount: 0.0,
    reserved: [0; 4],
};

/// cuBLASLt, opened on one device.
#[derive(Debug, Clone)]
pub struct ProductLibrary(Rc<Handle>);

#[derive(Debug)]
struct Handle {
    opened: sys::cublasLtHandle_t,
    stream: Arc<CudaStream>,
    device: DeviceId,
    /// Used by one product after the other.
    workspace: Buffer<u8>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: made by `create`, and dropped once. Nothing is to be done about a failure.
        let _ = unsafe { result::destroy_handle(self.opened) };
    }
}

impl ProductLibrary {
    pub(super) fn create(device: &Device, _: CublasLt) -> Result<Self, CudaError> {
        device.context.bind_to_thread().map_err(CudaError::driver("opening cuBLASLt"))?;
        let opened = result::create_handle().map_err(failed("opening cuBLASLt"))?;
        let workspace = device.zeros(WORKSPACE)?;
        Ok(Self(Rc::new(Handle { opened, stream: Arc::clone(&device.stream), device: device.id, workspace })))
    }
}

/// One product and its algorithm.
#[derive(Debug)]
pub(super) struct LibraryProduct {
    library: ProductLibrary,
    description: Description,
    weight: Layout,
    input_type: sys::cudaDataType,
    output_type: sys::cudaDataType,
    algorithm: sys::cublasLtMatmulAlgo_t,
}

impl LibraryProduct {
    /// The first algorithm, in the library's own order for the usual number of rows, that does not split the inner
    /// dimension and works at every number of rows; nothing if there is none. The order depends on GPU and library
    /// version alone: nothing is timed, so that two runs choose alike.
    pub(super) fn new<T: Element, O: Element>(
        library: &ProductLibrary,
        shape: ProductShape,
    ) -> Result<Option<Self>, CudaError> {
        let (Some(input_type), Some(output_type)) = (data_type::<T>(), data_type::<O>()) else {
            return Ok(None);
        };
        let description = Description::new(shape.biased, input_type)?;
        let (n, k) = (shape.outputs as u64, shape.inputs as u64);
        let weight = Layout::new(input_type, k, n)?;
        let preference = Preference::new::<T, O>(shape)?;
        let places = |rows: u64| -> Result<[Layout; 2], CudaError> {
            Ok([Layout::new(input_type, k, rows)?, Layout::new(output_type, n, rows)?])
        };
        let [x, out] = places(shape.usual_rows.max(1) as u64)?;
        let mut found = vec![NOTHING; ASKED];
        let mut count = 0;
        // SAFETY: every descriptor is alive, and there is room for as many results as are asked for.
        let status = unsafe {
            sys::cublasLtMatmulAlgoGetHeuristic(
                library.0.opened,
                description.0,
                weight.0,
                x.0,
                out.0,
                out.0,
                preference.0,
                ASKED as i32,
                found.as_mut_ptr(),
                &raw mut count,
            )
        };
        if status.result().is_err() {
            return Ok(None);
        }
        found.truncate(usize::try_from(count).unwrap_or(0));
        for candidate in found {
            let usable = candidate.state.result().is_ok() && !splits(&candidate.algo);
            let works = |rows: &u64| -> Result<bool, CudaError> {
                let [x, out] = places(*rows)?;
                let mut checked = NOTHING;
                // SAFETY: every descriptor is alive, and there is room for one result.
                let status = unsafe {
                    sys::cublasLtMatmulAlgoCheck(
                        library.0.opened,
                        description.0,
                        weight.0,
                        x.0,
                        out.0,
                        out.0,
                        &raw const candidate.algo,
                        &raw mut checked,
                    )
                };
                Ok(status.result().is_ok()
                    && checked.state.result().is_ok()
                    && checked.workspaceSize <= WORKSPACE)
            };
            if usable
                && TRIED_ROWS.iter().map(works).collect::<Result<Vec<_>, _>>()?.iter().all(|works| *works)
            {
                let (library, algorithm) = (library.clone(), candidate.algo);
                return Ok(Some(Self { library, description, weight, input_type, output_type, algorithm }));
            }
        }
        Ok(None)
    }

    pub(super) fn run<T: Element, O: Element>(
        &self,
        shape: ProductShape,
        x: Slice<'_, T>,
        w: Slice<'_, T>,
        bias: Option<Slice<'_, T>>,
        out: &mut SliceMut<'_, O>,
    ) -> Result<(), CudaError> {
        let handle = &self.library.0;
        let rows = checked_rows(shape, x, w, bias, out, handle.device)?;
        x.check_alignment("a product's left side", 16)?;
        w.check_alignment("a product's weight", 16)?;
        out.check_alignment("a product's results", 16)?;
        if rows == 0 {
            return Ok(());
        }
        let x_layout = Layout::new(self.input_type, shape.inputs as u64, rows.into())?;
        let out_layout = Layout::new(self.output_type, shape.outputs as u64, rows.into())?;
        if let Some(bias) = bias.filter(|_| shape.biased) {
            self.description
                .set(sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias.address)?;
        }
        let (one, zero) = (1f32, 0f32);
        // SAFETY: the descriptors are alive and say M x K, N x K and M x N elements of these types, which the three
        // slices were found to have, on this device; `out` is borrowed for writing; alpha and beta are read before the
        // call returns; the workspace is used on this one stream alone.
        let status = unsafe {
            result::matmul(
                handle.opened,
                self.description.0,
                (&raw const one).cast(),
                (&raw const zero).cast(),
                w.address as *const c_void,
                self.weight.0,
                x.address as *const c_void,
                x_layout.0,
                out.address as *const c_void,
                out_layout.0,
                out.address as *mut c_void,
                out_layout.0,
                &raw const self.algorithm,
                handle.workspace.all().address as *mut c_void,
                WORKSPACE,
                handle.stream.cu_stream().cast(),
            )
        };
        status.map_err(failed("multiplying"))
    }
}

impl fmt::Display for LibraryProduct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use sys::cublasLtMatmulAlgoConfigAttributes_t as Attribute;
        let names = [
            ("algorithm", Attribute::CUBLASLT_ALGO_CONFIG_ID),
            ("tile", Attribute::CUBLASLT_ALGO_CONFIG_TILE_ID),
            ("stages", Attribute::CUBLASLT_ALGO_CONFIG_STAGES_ID),
            ("custom", Attribute::CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION),
        ];
        for (name, attribute) in names {
            write!(f, "{name} {} ", configured(&self.algorithm, attribute).unwrap_or(0))?;
        }
        Ok(())
    }
}

/// Whether sums over the inner dimension are made in several pieces.
fn splits(algorithm: &sys::cublasLtMatmulAlgo_t) -> bool {
    use sys::cublasLtMatmulAlgoConfigAttributes_t as Attribute;
    let pieces = configured(algorithm, Attribute::CUBLASLT_ALGO_CONFIG_SPLITK_NUM);
    let reduction = configured(algorithm, Attribute::CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME);
    // 0 and 1 pieces both mean one; an algorithm that does not say is not trusted.
    !matches!((pieces, reduction), (Some(0 | 1), Some(0)))
}

fn configured(
    algorithm: &sys::cublasLtMatmulAlgo_t,
    attribute: sys::cublasLtMatmulAlgoConfigAttributes_t,
) -> Option<u32> {
    let (mut value, mut written) = (0u32, 0usize);
    // SAFETY: these attributes are 32 bits wide, inner and cluster shapes (16 bits) are never asked for, and there is
    // room for them.
    let status = unsafe {
        sys::cublasLtMatmulAlgoConfigGetAttribute(
            algorithm,
            attribute,
            (&raw mut value).cast(),
            size_of::<u32>(),
            &raw mut written,
        )
    };
    status.result().ok().map(|()| value)
}

fn data_type<T: Element>() -> Option<sys::cudaDataType> {
    match T::NAME {
        "bf16" => Some(sys::cudaDataType::CUDA_R_16BF),
        "f16" => Some(sys::cudaDataType::CUDA_R_16F),
        "f32" => Some(sys::cudaDataType::CUDA_R_32F),
        _ => None,
    }
}

fn failed(doing: &'static str) -> impl Fn(CublasError) -> CudaError {
    move |error| CudaError::Product { doing, code: format!("{:?}", error.0) }
}

/// A matrix as the library sees it: so many contiguous columns of so many rows.
#[derive(Debug)]
struct Layout(sys::cublasLtMatrixLayout_t);

impl Layout {
    fn new(kind: sys::cudaDataType, rows: u64, columns: u64) -> Result<Self, CudaError> {
        result::create_matrix_layout(kind, rows, columns, rows as i64)
            .map(Self)
            .map_err(failed("describing a matrix"))
    }
}

impl Drop for Layout {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and dropped once. Nothing is to be done about a failure.
        let _ = unsafe { result::destroy_matrix_layout(self.0) };
    }
}

/// Operands transposed as above, f32 sums, and a bias or none.
#[derive(Debug)]
struct Description(sys::cublasLtMatmulDesc_t);

impl Description {
    fn new(biased: bool, bias_type: sys::cudaDataType) -> Result<Self, CudaError> {
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        let made = result::create_matmul_desc(
            sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
            sys::cudaDataType::CUDA_R_32F,
        );
        let description = Self(made.map_err(failed("describing a product"))?);
        // CUBLAS_OP_T, an enumeration of another of the library's headers.
        description.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSA, &1i32)?;
        if biased {
            let epilogue = sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS;
            description.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue)?;
            description.set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &bias_type)?;
        }
        Ok(description)
    }

    fn set<V: Copy>(
        &self,
        attribute: sys::cublasLtMatmulDescAttributes_t,
        value: &V,
    ) -> Result<(), CudaError> {
        let value: *const V = value;
        // SAFETY: the description is alive, and the value, of the width that the attribute has, is copied.
        unsafe { result::set_matmul_desc_attribute(self.0, attribute, value.cast(), size_of::<V>()) }
            .map_err(failed("describing a product"))
    }
}

impl Drop for Description {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and dropped once. Nothing is to be done about a failure.
        let _ = unsafe { result::destroy_matmul_desc(self.0) };
    }
}

/// What an algorithm may not do: use a large workspace, or expect more alignment than rows and experts give.
#[derive(Debug)]
struct Preference(sys::cublasLtMatmulPreference_t);

impl Preference {
    fn new<T: Element, O: Element>(shape: ProductShape) -> Result<Self, CudaError> {
        use sys::cublasLtMatmulPreferenceAttributes_t as Attribute;
        let preference = Self(result::create_matmul_pref().map_err(failed("describing a preference"))?);
        let set = |attribute, value: *const c_void, bytes| {
            // SAFETY: the preference is alive, and the value, of the width that the attribute has, is copied.
            unsafe { result::set_matmul_pref_attribute(preference.0, attribute, value, bytes) }
                .map_err(failed("describing a preference"))
        };
        let workspace = WORKSPACE as u64;
        set(
            Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
            (&raw const workspace).cast(),
            size_of::<u64>(),
        )?;
        let alignments = [
            (
                Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
                shape.outputs * shape.inputs * size_of::<T>(),
            ),
            (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, shape.inputs * size_of::<T>()),
            (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, shape.outputs * size_of::<O>()),
            (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, shape.outputs * size_of::<O>()),
        ];
        for (attribute, stride) in alignments {
            // The largest power of two that divides the distance from one row, or one weight, to the next.
            let alignment = (1u32 << stride.trailing_zeros().min(ALIGNMENT.ilog2())).max(1);
            set(attribute, (&raw const alignment).cast(), size_of::<u32>())?;
        }
        Ok(preference)
    }
}

impl Drop for Preference {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and dropped once. Nothing is to be done about a failure.
        let _ = unsafe { result::destroy_matmul_pref(self.0) };
    }
}
