//! Device memory, and borrowed parts of it.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use cudarc::driver::CudaSlice;

use crate::{CudaError, Element};

/// Tells one opened device from another, also where both are the same GPU: they have streams of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeviceId(pub(crate) u64);

/// What frees memory when the last buffer in it is dropped.
#[derive(Debug)]
enum Memory<T> {
    Own { _memory: CudaSlice<T> },
    Shared { _memory: Arc<CudaSlice<u8>> },
    None,
}

/// Elements in the memory of a [`Device`](crate::Device), freed when dropped, after the operations queued so far.
#[derive(Debug)]
pub struct Buffer<T> {
    _memory: Memory<T>,
    address: u64,
    length: usize,
    device: DeviceId,
}

/// Elements of a buffer, to be read.
#[derive(Debug)]
pub struct Slice<'a, T> {
    pub(crate) address: u64,
    length: usize,
    device: DeviceId,
    buffer: PhantomData<&'a [T]>,
}

/// Elements of a buffer, to be written.
#[derive(Debug)]
pub struct SliceMut<'a, T> {
    pub(crate) address: u64,
    length: usize,
    device: DeviceId,
    buffer: PhantomData<&'a mut [T]>,
}

impl<T> Buffer<T> {
    /// `length` elements at `address`, which `memory` holds.
    pub(crate) fn new(memory: CudaSlice<T>, address: u64, length: usize, device: DeviceId) -> Self {
        Self { _memory: Memory::Own { _memory: memory }, address, length, device }
    }

    /// No element, for which no memory is asked.
    pub(crate) fn empty(device: DeviceId) -> Self {
        Self { _memory: Memory::None, address: 0, length: 0, device }
    }

    /// `length` elements at `address`, in memory that others have parts of.
    pub(crate) fn shared(memory: Arc<CudaSlice<u8>>, address: u64, length: usize, device: DeviceId) -> Self {
        Self { _memory: Memory::Shared { _memory: memory }, address, length, device }
    }

    /// Its elements.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Bytes that its elements take.
    pub fn bytes(&self) -> u64 {
        (self.length * size_of::<T>()) as u64
    }

    /// All of it, to be read.
    pub fn all(&self) -> Slice<'_, T> {
        Slice { address: self.address, length: self.length, device: self.device, buffer: PhantomData }
    }

    /// All of it, to be written.
    pub fn all_mut(&mut self) -> SliceMut<'_, T> {
        SliceMut { address: self.address, length: self.length, device: self.device, buffer: PhantomData }
    }

    /// Some of it, to be read.
    ///
    /// # Errors
    /// [`CudaError::Range`] where it has not so many elements.
    pub fn part(&self, range: Range<usize>) -> Result<Slice<'_, T>, CudaError> {
        let (address, length) = place::<T>(self.address, self.length, range)?;
        Ok(Slice { address, length, device: self.device, buffer: PhantomData })
    }

    /// Some of it, to be written.
    ///
    /// # Errors
    /// As [`part`](Self::part).
    pub fn part_mut(&mut self, range: Range<usize>) -> Result<SliceMut<'_, T>, CudaError> {
        let (address, length) = place::<T>(self.address, self.length, range)?;
        Ok(SliceMut { address, length, device: self.device, buffer: PhantomData })
    }
}

impl<T> Slice<'_, T> {
    /// `length` elements at `address`, which a device can read.
    pub(crate) fn new(address: u64, length: usize, device: DeviceId) -> Self {
        Self { address, length, device, buffer: PhantomData }
    }
}

impl<T> Clone for Slice<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Slice<'_, T> {}

impl<T> Slice<'_, T> {
    /// Its elements.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Fails unless it has so many elements and lies on that device.
    pub(crate) fn check(
        &self,
        what: &'static str,
        expected: usize,
        device: DeviceId,
    ) -> Result<(), CudaError> {
        check(what, (self.length, expected), (self.device, device))
    }

    /// Fails unless it begins at a multiple of `bytes`.
    pub(crate) fn check_alignment(&self, what: &'static str, bytes: u64) -> Result<(), CudaError> {
        check_alignment(what, self.address, bytes)
    }

    /// Some of it.
    ///
    /// # Errors
    /// [`CudaError::Range`] where it has not so many elements.
    pub fn part(&self, range: Range<usize>) -> Result<Self, CudaError> {
        let (address, length) = place::<T>(self.address, self.length, range)?;
        Ok(Self { address, length, device: self.device, buffer: PhantomData })
    }
}

impl<'a> Slice<'a, u32> {
    /// The same memory as 32-bit numbers.
    pub fn floats(self) -> Slice<'a, f32> {
        let Self { address, length, device, .. } = self;
        Slice { address, length, device, buffer: PhantomData }
    }

    /// The same memory as 16-bit integers, twice as many.
    pub fn halves(self) -> Slice<'a, u16> {
        let Self { address, length, device, .. } = self;
        Slice { address, length: 2 * length, device, buffer: PhantomData }
    }
}

impl<'a> SliceMut<'a, u32> {
    /// The same memory as 32-bit numbers.
    pub fn floats(self) -> SliceMut<'a, f32> {
        let Self { address, length, device, .. } = self;
        SliceMut { address, length, device, buffer: PhantomData }
    }

    /// The same memory as 16-bit integers, twice as many.
    pub fn halves(self) -> SliceMut<'a, u16> {
        let Self { address, length, device, .. } = self;
        SliceMut { address, length: 2 * length, device, buffer: PhantomData }
    }
}

impl<T> SliceMut<'_, T> {
    /// The first `length` elements, and those behind them.
    ///
    /// # Errors
    /// [`CudaError::Range`] where it has not so many elements.
    pub fn split(self, length: usize) -> Result<(Self, Self), CudaError> {
        let (second, rest) = place::<T>(self.address, self.length, length..self.length.max(length))?;
        let (device, buffer) = (self.device, PhantomData);
        Ok((
            Self { address: self.address, length, device, buffer },
            Self { address: second, length: rest, device, buffer },
        ))
    }

    /// Where its first element lies on the device, which tells it from the rest of what lives.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// All of it, to be read while it is not written.
    pub fn all(&self) -> Slice<'_, T> {
        Slice { address: self.address, length: self.length, device: self.device, buffer: PhantomData }
    }

    /// All of it, to be written by one operation.
    pub fn all_mut(&mut self) -> SliceMut<'_, T> {
        SliceMut { address: self.address, length: self.length, device: self.device, buffer: PhantomData }
    }

    /// Some of it, to be written by one operation.
    ///
    /// # Errors
    /// [`CudaError::Range`] where it has not so many elements.
    pub fn part_mut(&mut self, range: Range<usize>) -> Result<SliceMut<'_, T>, CudaError> {
        let (address, length) = place::<T>(self.address, self.length, range)?;
        Ok(SliceMut { address, length, device: self.device, buffer: PhantomData })
    }

    /// Its elements.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// As [`Slice::check`].
    pub(crate) fn check(
        &self,
        what: &'static str,
        expected: usize,
        device: DeviceId,
    ) -> Result<(), CudaError> {
        check(what, (self.length, expected), (self.device, device))
    }

    /// As [`Slice::check_alignment`].
    pub(crate) fn check_alignment(&self, what: &'static str, bytes: u64) -> Result<(), CudaError> {
        check_alignment(what, self.address, bytes)
    }
}

impl<'a, T: Element> SliceMut<'a, T> {
    /// The same memory as little-endian bytes, as files hold it: any bits are an element.
    pub fn into_bytes(self) -> SliceMut<'a, u8> {
        let length = self.length * size_of::<T>();
        SliceMut { address: self.address, length, device: self.device, buffer: PhantomData }
    }
}

fn place<T>(address: u64, length: usize, range: Range<usize>) -> Result<(u64, usize), CudaError> {
    let Range { start, end } = range;
    if start > end || end > length {
        return Err(CudaError::Range { start, end, length });
    }
    Ok((address + (start * size_of::<T>()) as u64, end - start))
}

fn check(
    what: &'static str,
    (found, expected): (usize, usize),
    (on, device): (DeviceId, DeviceId),
) -> Result<(), CudaError> {
    if on != device {
        return Err(CudaError::OtherDevice { what });
    }
    if found != expected {
        return Err(CudaError::Length { what, found, expected });
    }
    Ok(())
}

fn check_alignment(what: &'static str, address: u64, expected: u64) -> Result<(), CudaError> {
    if address.is_multiple_of(expected) { Ok(()) } else { Err(CudaError::Alignment { what, expected }) }
}
