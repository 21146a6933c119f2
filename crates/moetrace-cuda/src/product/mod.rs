//! Products of activations and weights, `y = x W^T + bias`.
//!
//! Each is pinned, when it is made, to one way of computing: one cuBLASLt algorithm that sums over the inner dimension
//! in one piece, or the plain kernel. So an element's bits depend on its row of x, its row of W and the shape `(N, K)`
//! alone, never on how many rows are multiplied together.

mod library;
mod plain;

use crate::{Compiler, CublasLt, CudaError, Device, Element, Slice, SliceMut};

use self::library::LibraryProduct;
pub use self::library::ProductLibrary;
use self::plain::PlainProduct;
pub(crate) use self::plain::kernels;

/// What a product multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProductShape {
    /// N, rows of the weight.
    pub outputs: usize,
    /// K, columns of the weight and of x.
    pub inputs: usize,
    /// Whether a bias `[N]` is added.
    pub biased: bool,
    /// Rows that x usually has: the algorithm is chosen for them, and used for any number.
    pub usual_rows: usize,
}

/// A product of one shape; `O` is what it rounds its f32 sums to.
#[derive(Debug)]
pub struct Product<T, O = T> {
    shape: ProductShape,
    way: Way<T, O>,
}

#[derive(Debug)]
enum Way<T, O> {
    Library(LibraryProduct),
    Plain(PlainProduct<T, O>),
}

impl<T: Element, O: Element> Product<T, O> {
    /// Chooses the way: the library for 16-bit elements and widths that are multiples of eight, if it has an algorithm
    /// for every number of rows; else the plain kernel.
    ///
    /// # Errors
    /// [`CudaError::Value`] for a width of 0; [`CudaError::Product`]; what [`Compiler::compile`] fails with.
    pub fn new(
        device: &Device,
        compiler: &Compiler,
        library: &ProductLibrary,
        shape: ProductShape,
    ) -> Result<Self, CudaError> {
        for (what, found) in [("a product's outputs", shape.outputs), ("a product's inputs", shape.inputs)] {
            if found == 0 || i32::try_from(found).is_err() {
                return Err(CudaError::Value { what, found, expected: "1 to 2^31" });
            }
        }
        let sixteen = |elements: usize, size: usize| (elements * size).is_multiple_of(16);
        let narrow = size_of::<T>() == 2
            && sixteen(shape.inputs, size_of::<T>())
            && sixteen(shape.outputs, size_of::<O>());
        let found = if narrow { LibraryProduct::new::<T, O>(library, shape)? } else { None };
        let way = match found {
            Some(product) => Way::Library(product),
            None => Way::Plain(PlainProduct::new(device, compiler)?),
        };
        Ok(Self { shape, way })
    }

    /// What it multiplies.
    pub fn shape(&self) -> ProductShape {
        self.shape
    }

    /// How it computes, for people.
    pub fn way(&self) -> String {
        match &self.way {
            Way::Library(product) => product.to_string(),
            Way::Plain(_) => "plain kernel".to_owned(),
        }
    }

    /// Queues out `[M, N]` = x `[M, K]` times w `[N, K]` transposed, plus bias `[N]`; all begin at multiples of 16
    /// bytes if the library multiplies.
    ///
    /// # Errors
    /// [`CudaError::Length`], [`CudaError::Alignment`], [`CudaError::OtherDevice`] for arguments that do not fit;
    /// [`CudaError::Product`], [`CudaError::Driver`].
    pub fn run(
        &self,
        x: Slice<'_, T>,
        w: Slice<'_, T>,
        bias: Option<Slice<'_, T>>,
        out: &mut SliceMut<'_, O>,
    ) -> Result<(), CudaError> {
        match &self.way {
            Way::Library(product) => product.run(self.shape, x, w, bias, out),
            Way::Plain(product) => product.run(self.shape, x, w, bias, out),
        }
    }
}

/// The rows of x, if the four belong together.
fn checked_rows<T: Element, O: Element>(
    shape: ProductShape,
    x: Slice<'_, T>,
    w: Slice<'_, T>,
    bias: Option<Slice<'_, T>>,
    out: &SliceMut<'_, O>,
    device: crate::memory::DeviceId,
) -> Result<u32, CudaError> {
    let rows = out.len() / shape.outputs;
    out.check("a product's results", rows * shape.outputs, device)?;
    let inputs = crate::launch::matrix("a product's rows", rows, shape.inputs)?;
    x.check("a product's left side", inputs, device)?;
    w.check(
        "a product's weight",
        crate::launch::matrix("a product's weight", shape.outputs, shape.inputs)?,
        device,
    )?;
    match bias {
        Some(bias) => bias.check("a product's bias", shape.outputs, device)?,
        None if shape.biased => {
            let (what, expected) = ("a product's bias", shape.outputs);
            return Err(CudaError::Length { what, found: 0, expected });
        }
        None => {}
    }
    crate::launch::count("the rows of a product", rows)
}

impl ProductLibrary {
    /// cuBLASLt on the device's stream.
    ///
    /// # Errors
    /// [`CudaError::Product`], [`CudaError::Driver`].
    pub fn open(device: &Device, library: CublasLt) -> Result<Self, CudaError> {
        Self::create(device, library)
    }
}
