//! Which tensor goes into which file.

use std::ops::Range;

use moetrace_nf4::{ElementType, Nf4Settings};

/// A tensor to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OutputTensor {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) storage: OutputStorage,
}

/// How it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputStorage {
    Dense(ElementType),
    /// In 4 bits, quantised from elements of that type.
    Nf4 {
        element: ElementType,
        settings: Nf4Settings,
    },
}

impl OutputTensor {
    pub(crate) fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Bytes in the file, maps and states of some 1.3 KB apart.
    pub(crate) fn bytes(&self) -> u64 {
        match self.storage {
            OutputStorage::Dense(element) => (self.elements() * element.size()) as u64,
            OutputStorage::Nf4 { settings, .. } => settings.bytes(self.elements()) as u64,
        }
    }
}

/// Tensors in order, a new file begun where the next would exceed `most` bytes; each file has one at least.
pub(crate) fn shards(tensors: &[OutputTensor], most: u64) -> Vec<Range<usize>> {
    let mut shards = Vec::new();
    let (mut start, mut bytes) = (0, 0u64);
    for (number, tensor) in tensors.iter().enumerate() {
        if number > start && bytes + tensor.bytes() > most {
            shards.push(start..number);
            (start, bytes) = (number, 0);
        }
        bytes += tensor.bytes();
    }
    shards.push(start..tensors.len());
    shards
}

/// Elements of tensors that are prepared together: some 130 MB in 4 bits, and work for many threads.
const GROUP_ELEMENTS: usize = 256 << 20;

/// Tensors of a file in order, as many together as are prepared together; each group has one at least.
pub(crate) fn groups(tensors: &[OutputTensor]) -> Vec<Range<usize>> {
    let mut groups = Vec::new();
    let (mut start, mut elements) = (0, 0usize);
    for (number, tensor) in tensors.iter().enumerate() {
        if number > start && elements + tensor.elements() > GROUP_ELEMENTS {
            groups.push(start..number);
            (start, elements) = (number, 0);
        }
        elements += tensor.elements();
    }
    if start < tensors.len() {
        groups.push(start..tensors.len());
    }
    groups
}

/// The name that transformers gives the file.
pub(crate) fn file_name(number: usize, of: usize) -> String {
    if of == 1 {
        return "model.safetensors".to_owned();
    }
    format!("model-{:05}-of-{of:05}.safetensors", number + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensors(sizes: &[usize]) -> Vec<OutputTensor> {
        let tensor = |size: &usize| OutputTensor {
            name: format!("t{size}"),
            shape: vec![*size],
            storage: OutputStorage::Dense(ElementType::F32),
        };
        sizes.iter().map(tensor).collect()
    }

    #[test]
    fn files_stay_below_the_limit_unless_one_tensor_exceeds_it() {
        assert_eq!(shards(&tensors(&[10, 10, 5, 100, 1]), 80), [0..2, 2..3, 3..4, 4..5]);
        assert_eq!(shards(&tensors(&[1, 2, 3]), u64::MAX).len(), 1);
    }

    #[test]
    fn groups_hold_every_tensor_once_and_not_too_much_together() {
        let most = GROUP_ELEMENTS;
        assert_eq!(groups(&tensors(&[most, 1, most - 1, 2 * most, 5])), [0..1, 1..3, 3..4, 4..5]);
        assert!(groups(&[]).is_empty());
    }

    #[test]
    fn one_file_has_the_plain_name() {
        assert_eq!(file_name(0, 1), "model.safetensors");
        assert_eq!(file_name(1, 12), "model-00002-of-00012.safetensors");
    }
}
