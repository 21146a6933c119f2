//! One tensor at a time: read, and rounded, transposed, quantised or restored as its place asks for.

use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};
use moetrace_nf4::{ElementType, Nf4Error, Nf4Tensor, Source, Target};

use super::decode::decode;
use super::load::Loader;
use super::matrix::Matrix;
use crate::checkpoint::{StorageType, TensorRole};
use crate::{ComputeDtype, ModelError};

impl Loader<'_> {
    /// A projection as it is computed with.
    pub(super) fn projection(&self, name: &str) -> Result<Matrix, ModelError> {
        match self.four_bit(name)? {
            Some(tensor) => Ok(Matrix::Nf4(vec![tensor])),
            None => Ok(Matrix::Dense(self.turned(name)?)),
        }
    }

    /// A router or a shared gate: held dense, but through 4 bits if that is asked for.
    pub(super) fn gate(&self, name: &str, role: TensorRole) -> Result<Tensor, ModelError> {
        if !self.quantises(role) {
            return self.matrix(name);
        }
        let shape = self.shape(name);
        self.restored(name, &self.quantised(&Part::whole(name), &shape)?)
    }

    pub(super) fn quantises(&self, role: TensorRole) -> bool {
        self.quantisation.is_some_and(|quantisation| role.is_quantised(self.config.family(), quantisation))
    }

    /// A projection in 4 bits, read or made; nothing where it is to be dense.
    pub(super) fn four_bit(&self, name: &str) -> Result<Option<Nf4Tensor>, ModelError> {
        if self.checkpoint.tensor(name).is_some_and(|entry| entry.storage == StorageType::Nf4) {
            return self.checkpoint.read_nf4(name).map(Some);
        }
        if !self.quantises(TensorRole::Projection) {
            return Ok(None);
        }
        self.quantised(&Part::whole(name), &self.shape(name)).map(Some)
    }

    /// Quantises stored elements, from the type that they are stored in.
    pub(super) fn quantised(&self, part: &Part<'_>, shape: &[usize]) -> Result<Nf4Tensor, ModelError> {
        let mut bytes = self.scratch.borrow_mut();
        bytes.clear();
        let element = self.append(part, &mut bytes)?;
        let settings = self.quantisation.unwrap_or_default().nf4;
        Nf4Tensor::quantise(Source { bytes: &bytes, element }, shape, settings).map_err(|source| {
            let file = self.checkpoint.tensor(part.name).map(|entry| entry.file.display().to_string());
            ModelError::Nf4 { file: file.unwrap_or_default(), tensor: part.name.to_owned(), source }
        })
    }

    /// The elements of a 4-bit tensor in the type of the activations.
    fn restored(&self, name: &str, tensor: &Nf4Tensor) -> Result<Tensor, ModelError> {
        fn all<T: Target>(tensor: &Nf4Tensor) -> Result<Vec<T>, Nf4Error> {
            let mut out = vec![T::default(); tensor.elements()];
            tensor.dequantise_parallel(&mut out)?;
            Ok(out)
        }
        let shape = self.shape(name);
        let refused = |source| {
            let file = self.checkpoint.dir().display().to_string();
            ModelError::Nf4 { file, tensor: name.to_owned(), source }
        };
        Ok(match self.compute {
            ComputeDtype::F32 => Tensor::from_vec(all::<f32>(tensor).map_err(refused)?, shape, &Device::Cpu)?,
            ComputeDtype::Bf16 => {
                Tensor::from_vec(all::<bf16>(tensor).map_err(refused)?, shape, &Device::Cpu)?
            }
            ComputeDtype::F16 => Tensor::from_vec(all::<f16>(tensor).map_err(refused)?, shape, &Device::Cpu)?,
        })
    }

    /// The transposed of a matrix, `[in, out]`: products then read it without repacking.
    pub(super) fn turned(&self, name: &str) -> Result<Tensor, ModelError> {
        if self.checkpoint.tensor(name).is_some_and(|entry| entry.storage == StorageType::Nf4) {
            return Ok(self.matrix(name)?.t()?.contiguous()?);
        }
        self.tensor(&[Part::whole(name)], &self.shape(name), true)
    }

    /// A matrix in the type of the activations; one that is stored in 4 bits is restored.
    pub(super) fn matrix(&self, name: &str) -> Result<Tensor, ModelError> {
        if self.checkpoint.tensor(name).is_some_and(|entry| entry.storage == StorageType::Nf4) {
            return self.restored(name, &self.checkpoint.read_nf4(name)?);
        }
        self.tensor(&[Part::whole(name)], &self.shape(name), false)
    }

    pub(super) fn rows_and_columns(&self, name: &str) -> [usize; 2] {
        match *self.shape(name) {
            [rows, columns] => [rows, columns],
            _ => [0, 0],
        }
    }

    /// A norm's weight or a bias: rounded to the type of the activations, kept as f32, since it is added and multiplied
    /// element by element.
    pub(super) fn vector(&self, name: &str) -> Result<Tensor, ModelError> {
        Ok(self.matrix(name)?.to_dtype(DType::F32)?)
    }

    pub(super) fn shape(&self, name: &str) -> Vec<usize> {
        self.checkpoint.tensor(name).map(|entry| entry.shape.to_vec()).unwrap_or_default()
    }

    /// Reads parts of one storage type, one below the other, as a tensor of `shape`, transposed if `turned`.
    pub(super) fn tensor(
        &self,
        parts: &[Part<'_>],
        shape: &[usize],
        turned: bool,
    ) -> Result<Tensor, ModelError> {
        let mut bytes = self.scratch.borrow_mut();
        bytes.clear();
        let mut element = ElementType::F32;
        for part in parts {
            element = self.append(part, &mut bytes)?;
        }
        let (shape, turn) = match *shape {
            [rows, columns] if turned => (vec![columns, rows], Some([rows, columns])),
            _ => (shape.to_vec(), None),
        };
        Ok(match self.compute {
            ComputeDtype::F32 => Tensor::from_vec(decode(&bytes, element, turn, |v| v), shape, &Device::Cpu)?,
            ComputeDtype::Bf16 => {
                Tensor::from_vec(decode(&bytes, element, turn, bf16::from_f32), shape, &Device::Cpu)?
            }
            ComputeDtype::F16 => {
                Tensor::from_vec(decode(&bytes, element, turn, f16::from_f32), shape, &Device::Cpu)?
            }
        })
    }

    fn append(&self, part: &Part<'_>, bytes: &mut Vec<u8>) -> Result<ElementType, ModelError> {
        let entry = self.checkpoint.tensor(part.name).ok_or_else(|| ModelError::UnknownTensor {
            dir: self.checkpoint.dir().to_owned(),
            tensor: part.name.to_owned(),
        })?;
        let element = entry.storage.element().ok_or_else(|| ModelError::FourBitRole {
            file: entry.file.display().to_string(),
            tensor: part.name.to_owned(),
        })?;
        let len = part.elements.map_or(entry.bytes, |elements| elements * element.size());
        let start = bytes.len();
        bytes.resize(start + len, 0);
        self.checkpoint.read_part_into(part.name, part.number * len, &mut bytes[start..])?;
        Ok(element)
    }
}

/// Some of a tensor's elements.
pub(super) struct Part<'a> {
    pub(super) name: &'a str,
    /// Which of its equal parts.
    pub(super) number: usize,
    /// Elements of each part; all of the tensor's if not given.
    pub(super) elements: Option<usize>,
}

impl<'a> Part<'a> {
    pub(super) fn whole(name: &'a str) -> Self {
        Self { name, number: 0, elements: None }
    }
}
