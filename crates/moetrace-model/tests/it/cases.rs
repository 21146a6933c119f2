//! Parity cases: expectation of the reference implementations beside checkpoints, packed or plain.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};

/// A tensor of `expected.safetensors`.
pub(crate) struct Array {
    pub(crate) shape: Vec<usize>,
    pub(crate) floats: Vec<f32>,
    pub(crate) ints: Vec<u32>,
}

pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) dir: PathBuf,
    pub(crate) expected: HashMap<String, Array>,
    /// Keeps unpacked files alive.
    _unpacked: Option<tempfile::TempDir>,
}

impl Case {
    /// The inputs of one of its runs: main (no prefix), `jump.` or `long.`, if the case has it.
    pub(crate) fn inputs(&self, prefix: &str) -> Option<Masked> {
        let get = |name: &str| self.expected.get(name);
        let (ids, positions, mask) = match prefix {
            "jump." => (get("input_ids")?, Some(get("jump.position_ids")?), get("attention_mask")),
            "long." => (get("long.input_ids")?, None, None),
            _ => (get("input_ids")?, get("position_ids"), get("attention_mask")),
        };
        Some(masked(ids, positions, mask))
    }
}

/// Undoes `fixtures/generate/pack_parity.py`; the format is described in `fixtures/parity/README.md`.
pub(crate) fn unpack(packed: &[u8]) -> Vec<u8> {
    assert_eq!(&packed[..4], b"BPZ1");
    let count = usize::from(packed[4]);
    let number = |at: usize| u64::from_le_bytes(packed[at..at + 8].try_into().unwrap()) as usize;
    let length = number(5);
    let mut out = vec![0; length.next_multiple_of(count)];
    let mut at = 13 + 8 * count;
    for plane in 0..count {
        let end = at + number(13 + 8 * plane);
        let bytes = zstd::decode_all(&packed[at..end]).unwrap();
        at = end;
        for (to, byte) in out.iter_mut().skip(plane).step_by(count).zip(bytes) {
            *to = byte;
        }
    }
    out.truncate(length);
    out
}

pub(crate) fn read_expected(bytes: &[u8]) -> HashMap<String, Array> {
    let file = SafeTensors::deserialize(bytes).unwrap();
    let read = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
        let (mut floats, mut ints) = (Vec::new(), Vec::new());
        match view.dtype() {
            Dtype::F32 => floats = view.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Dtype::I64 => {
                let all = view.data().as_chunks().0.iter().map(|b| i64::from_le_bytes(*b));
                ints = all.map(|i| u32::try_from(i).unwrap()).collect();
            }
            other => panic!("{name} is {other:?}"),
        }
        (name, Array { shape: view.shape().to_vec(), floats, ints })
    };
    file.tensors().into_iter().map(read).collect()
}

pub(crate) fn committed(name: &str) -> Case {
    // A program that was copied to another machine is told where its fixtures are.
    let fixtures = std::env::var_os("MOETRACE_FIXTURES").map(PathBuf::from);
    let fixtures = fixtures.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures"));
    let dir = fixtures.join("parity").join(name);
    let packed = |file: &str| unpack(&fs::read(dir.join(file)).unwrap());
    let unpacked = tempfile::tempdir().unwrap();
    fs::copy(dir.join("config.json"), unpacked.path().join("config.json")).unwrap();
    fs::write(unpacked.path().join("model.safetensors"), packed("model.safetensors.bpz")).unwrap();
    let expected = read_expected(&packed("expected.safetensors.bpz"));
    Case { name: name.to_owned(), dir: unpacked.path().to_owned(), expected, _unpacked: Some(unpacked) }
}

/// Cases that are not committed, as plain files.
pub(crate) fn further_cases() -> Vec<Case> {
    let Some(folder) = std::env::var_os("MOETRACE_PARITY_EXTRA") else { return Vec::new() };
    let mut dirs: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    dirs.sort();
    dirs.retain(|dir| dir.join("expected.safetensors").exists() && dir.join("model.safetensors").exists());
    let case = |dir: PathBuf| Case {
        name: dir.file_name().unwrap().to_string_lossy().into_owned(),
        expected: read_expected(&fs::read(dir.join("expected.safetensors")).unwrap()),
        dir,
        _unpacked: None,
    };
    dirs.into_iter().map(case).collect()
}

/// Rows of the packed batch among the `[B, T]` rows of the reference.
pub(crate) struct Masked {
    pub(crate) samples: Vec<Vec<u32>>,
    pub(crate) positions: Vec<Vec<u32>>,
    pub(crate) rows: Vec<usize>,
}

pub(crate) fn masked(ids: &Array, positions: Option<&Array>, mask: Option<&Array>) -> Masked {
    let [b, t] = ids.shape[..] else { panic!("input ids of shape {:?}", ids.shape) };
    let mut masked = Masked { samples: vec![vec![]; b], positions: vec![vec![]; b], rows: vec![] };
    for row in 0..b * t {
        if mask.is_none_or(|mask| mask.ints[row] == 1) {
            masked.samples[row / t].push(ids.ints[row]);
            masked.positions[row / t].push(positions.map_or((row % t) as u32, |p| p.ints[row]));
            masked.rows.push(row);
        }
    }
    masked
}

pub(crate) fn pick(values: &[f32], rows: &[usize], width: usize) -> Vec<f32> {
    rows.iter().flat_map(|row| values[row * width..(row + 1) * width].iter().copied()).collect()
}

pub(crate) fn margin(probs: &[f32], k: usize) -> f32 {
    let mut sorted = probs.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    sorted[k - 1] - sorted.get(k).copied().unwrap_or(0.0)
}
