//! What is loaded to a place in device memory, read or made piece by piece.

use half::{bf16, f16};
use moetrace_nf4::ElementType;

use super::read::Piece;
use crate::ModelError;
use crate::checkpoint::Checkpoint;

/// Elements that are converted at a time: few enough for a cache, many enough for a call to read them.
const CONVERTED: usize = 32 << 10;

/// Bytes of a place in device memory, and where they come from.
#[derive(Debug)]
pub(super) struct Origin {
    bytes: usize,
    of: Of,
}

#[derive(Debug)]
enum Of {
    /// Elements of a dense tensor from number `first` on.
    Elements { tensor: String, first: usize, stored: ElementType, wanted: ElementType },
    /// Codes of a 4-bit tensor.
    Codes(String),
    /// Scales of a 4-bit tensor's blocks, or their codes.
    Scales(String),
    /// What is in memory already: little, or of a shape that is read as a whole.
    Memory(Vec<u8>),
}

impl Origin {
    /// Elements of a dense tensor, `stored` as one type and `wanted` as another.
    pub(super) fn elements(piece: &Piece, stored: ElementType, wanted: ElementType) -> Self {
        let of = Of::Elements { tensor: piece.name.clone(), first: piece.first(), stored, wanted };
        Self { bytes: piece.elements() * wanted.size(), of }
    }

    /// Codes of a whole tensor in 4 bits.
    pub(super) fn codes(piece: &Piece) -> Self {
        Self { bytes: piece.elements() / 2, of: Of::Codes(piece.name.clone()) }
    }

    /// The `bytes` that the scales of a whole tensor's blocks, or their codes, are stored in.
    pub(super) fn scales(piece: &Piece, bytes: usize) -> Self {
        Self { bytes, of: Of::Scales(piece.name.clone()) }
    }

    /// Numbers in memory.
    pub(super) fn floats(values: impl Iterator<Item = f32>) -> Self {
        Self::memory(values.flat_map(f32::to_le_bytes).collect())
    }

    /// Little-endian bytes in memory.
    pub(super) fn memory(bytes: Vec<u8>) -> Self {
        Self { bytes: bytes.len(), of: Of::Memory(bytes) }
    }

    /// Bytes of its place.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Sets `out` to what its place holds from byte `start` on. An element begins there, and one ends at the end.
    pub(super) fn fill(
        &self,
        checkpoint: &Checkpoint,
        start: usize,
        out: &mut [u8],
    ) -> Result<(), ModelError> {
        match &self.of {
            Of::Codes(tensor) => checkpoint.read_part_into(tensor, start, out),
            Of::Scales(tensor) => checkpoint.read_scales_into(tensor, start, out),
            Of::Memory(bytes) => {
                out.copy_from_slice(&bytes[start..][..out.len()]);
                Ok(())
            }
            Of::Elements { tensor, first, stored, wanted } if stored == wanted => {
                checkpoint.read_part_into(tensor, first * stored.size() + start, out)
            }
            Of::Elements { tensor, first, stored, wanted } => {
                let mut element = first + start / wanted.size();
                let mut bytes = vec![0; CONVERTED.min(out.len() / wanted.size()) * stored.size()];
                for out in out.chunks_mut(CONVERTED * wanted.size()) {
                    let count = out.len() / wanted.size();
                    let from = &mut bytes[..count * stored.size()];
                    checkpoint.read_part_into(tensor, element * stored.size(), from)?;
                    convert((from, *stored), (out, *wanted));
                    element += count;
                }
                Ok(())
            }
        }
    }
}

/// Rounds elements to another type, ties to even; `to` has room for as many.
pub(super) fn convert((from, stored): (&[u8], ElementType), to: (&mut [u8], ElementType)) {
    let pairs = from.as_chunks::<2>().0.iter();
    match stored {
        ElementType::F32 => {
            narrow(from.as_chunks().0.iter().map(|bytes: &[u8; 4]| f32::from_le_bytes(*bytes)), to);
        }
        ElementType::F16 => narrow(pairs.map(|bytes| f16::from_le_bytes(*bytes).to_f32()), to),
        ElementType::Bf16 => narrow(pairs.map(|bytes| bf16::from_le_bytes(*bytes).to_f32()), to),
    }
}

fn narrow(values: impl Iterator<Item = f32>, (out, wanted): (&mut [u8], ElementType)) {
    match wanted {
        ElementType::F32 => set(out, values.map(f32::to_le_bytes)),
        ElementType::F16 => set(out, values.map(|value| f16::from_f32(value).to_le_bytes())),
        ElementType::Bf16 => set(out, values.map(|value| bf16::from_f32(value).to_le_bytes())),
    }
}

fn set<const N: usize>(out: &mut [u8], values: impl Iterator<Item = [u8; N]>) {
    for (out, value) in out.as_chunks_mut().0.iter_mut().zip(values) {
        *out = value;
    }
}

#[cfg(test)]
mod tests {
    use moetrace_nf4::Scales;

    use super::*;
    use crate::synthetic::{SyntheticSettings, tiny_config, write_checkpoint};
    use crate::{CheckpointSettings, Family, Nf4Settings, Quantisation};

    const TYPES: [ElementType; 3] = [ElementType::F32, ElementType::F16, ElementType::Bf16];

    fn with_checkpoint(settings: &SyntheticSettings, see: impl Fn(&Checkpoint)) {
        let dir = tempfile::tempdir().unwrap();
        write_checkpoint(dir.path(), &tiny_config(Family::Qwen2Moe), settings).unwrap();
        for mmap in [false, true] {
            see(&Checkpoint::open(dir.path(), &CheckpointSettings { mmap }).unwrap());
        }
    }

    /// All of an origin, asked for in pieces of `step` bytes from the last one on.
    fn filled(origin: &Origin, checkpoint: &Checkpoint, step: usize) -> Vec<u8> {
        let mut out = vec![0xAA; origin.bytes()];
        let pieces = out.chunks_mut(step).enumerate().rev();
        for (number, out) in pieces {
            origin.fill(checkpoint, number * step, out).unwrap();
        }
        out
    }

    fn piece(checkpoint: &Checkpoint, name: &str, part: Option<(usize, usize)>) -> Piece {
        let elements = checkpoint.tensor(name).unwrap().shape.iter().product();
        let elements = part.map_or(elements, |(_, elements)| elements);
        Piece { name: name.to_owned(), part, rows: 1, columns: elements }
    }

    #[test]
    fn elements_arrive_in_every_type_whatever_pieces_they_are_asked_for_in() {
        for stored in TYPES {
            let settings =
                SyntheticSettings { element: stored, fused_experts: true, ..SyntheticSettings::default() };
            with_checkpoint(&settings, |checkpoint| {
                for entry in checkpoint.tensors() {
                    let mut bytes = vec![0; entry.bytes];
                    checkpoint.read_into(entry.name, &mut bytes).unwrap();
                    for wanted in TYPES {
                        let elements = bytes.len() / stored.size();
                        let mut expected = vec![0; elements * wanted.size()];
                        convert((&bytes, stored), (&mut expected, wanted));
                        let whole = Origin::elements(&piece(checkpoint, entry.name, None), stored, wanted);
                        let halves = [0, 1].map(|number| {
                            let piece = piece(checkpoint, entry.name, Some((number, elements / 2)));
                            filled(&Origin::elements(&piece, stored, wanted), checkpoint, 512)
                        });
                        for step in [256, 1280, 1 << 20] {
                            assert_eq!(filled(&whole, checkpoint, step), expected, "{}", entry.name);
                        }
                        assert_eq!(halves.concat(), expected, "{}", entry.name);
                    }
                }
            });
        }
    }

    #[test]
    fn more_elements_than_are_converted_at_once_arrive() {
        let mut config = tiny_config(Family::Mixtral);
        config["vocab_size"] = serde_json::json!(3 * CONVERTED / 32 + 5);
        let dir = tempfile::tempdir().unwrap();
        write_checkpoint(dir.path(), &config, &SyntheticSettings::default()).unwrap();
        let checkpoint = Checkpoint::open(dir.path(), &CheckpointSettings::default()).unwrap();
        let name = "model.embed_tokens.weight";
        let mut bytes = vec![0; checkpoint.tensor(name).unwrap().bytes];
        checkpoint.read_into(name, &mut bytes).unwrap();
        let values = bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
        let expected: Vec<u8> = values.flat_map(|value| bf16::from_f32(value).to_le_bytes()).collect();
        let piece = piece(&checkpoint, name, None);
        let origin = Origin::elements(&piece, ElementType::F32, ElementType::Bf16);
        assert!(filled(&origin, &checkpoint, 1 << 30) == expected);
        assert!(filled(&origin, &checkpoint, 100 << 10) == expected);
    }

    #[test]
    fn codes_and_scales_arrive_as_they_are_stored() {
        for double_quant in [false, true] {
            let nf4 = Nf4Settings { double_quant, ..Nf4Settings::default() };
            let quantisation = Some(Quantisation { nf4, ..Quantisation::default() });
            let settings = SyntheticSettings { quantisation, ..SyntheticSettings::default() };
            with_checkpoint(&settings, |checkpoint| {
                for entry in checkpoint.tensors().filter(|entry| entry.quantised.is_some()) {
                    let tensor = checkpoint.read_nf4(entry.name).unwrap();
                    let piece = piece(checkpoint, entry.name, None);
                    assert_eq!(filled(&Origin::codes(&piece), checkpoint, 256), tensor.codes());
                    let expected = match tensor.scales() {
                        Scales::Plain(absmax) => absmax.iter().flat_map(|s| s.to_le_bytes()).collect(),
                        Scales::Double { codes, .. } => codes.to_vec(),
                    };
                    let origin = Origin::scales(&piece, expected.len());
                    assert_eq!(filled(&origin, checkpoint, 8), expected, "{}", entry.name);
                }
            });
        }
    }

    #[test]
    fn what_is_in_memory_arrives() {
        with_checkpoint(&SyntheticSettings::default(), |checkpoint| {
            let origin = Origin::floats((0..100).map(|i| i as f32));
            let expected: Vec<u8> = (0..100).flat_map(|i| (i as f32).to_le_bytes()).collect();
            assert_eq!(filled(&origin, checkpoint, 256), expected);
        });
    }
}
