//! Stored bytes to the elements that the engine computes with.

use half::{bf16, f16};

use moetrace_nf4::ElementType;

/// Side of the squares that a matrix is transposed by, so that reads and writes both stay in the cache.
const SQUARE: usize = 32;

/// Little-endian elements, converted; `turned` gives the rows and columns of a matrix to be transposed.
pub(super) fn decode<T: Copy + Default>(
    bytes: &[u8],
    element: ElementType,
    turned: Option<[usize; 2]>,
    convert: impl Fn(f32) -> T,
) -> Vec<T> {
    let pairs = bytes.as_chunks::<2>().0;
    match element {
        ElementType::F32 => arrange(bytes.as_chunks::<4>().0, turned, |b| convert(f32::from_le_bytes(b))),
        ElementType::F16 => arrange(pairs, turned, |b| convert(f16::from_le_bytes(b).to_f32())),
        ElementType::Bf16 => arrange(pairs, turned, |b| convert(bf16::from_le_bytes(b).to_f32())),
    }
}

fn arrange<const W: usize, T: Copy + Default>(
    stored: &[[u8; W]],
    turned: Option<[usize; 2]>,
    convert: impl Fn([u8; W]) -> T,
) -> Vec<T> {
    let Some([rows, columns]) = turned else {
        return stored.iter().map(|element| convert(*element)).collect();
    };
    let mut out = vec![T::default(); stored.len()];
    for top in (0..rows).step_by(SQUARE) {
        for left in (0..columns).step_by(SQUARE) {
            for row in top..rows.min(top + SQUARE) {
                for column in left..columns.min(left + SQUARE) {
                    out[column * rows + row] = convert(stored[row * columns + column]);
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turning_a_matrix_moves_every_element_to_its_mirrored_place() {
        let (rows, columns) = (70, 33);
        let bytes: Vec<u8> = (0..rows * columns).flat_map(|i| (i as f32).to_le_bytes()).collect();
        let turned = decode(&bytes, ElementType::F32, Some([rows, columns]), |v| v as usize);
        let plain = decode(&bytes, ElementType::F32, None, |v| v as usize);
        for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
            assert_eq!(turned[column * rows + row], plain[row * columns + column]);
        }
    }
}
