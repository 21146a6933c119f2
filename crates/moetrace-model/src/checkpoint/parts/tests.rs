//! Parts by themselves against whole tensors.

use std::fs::OpenOptions;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::synthetic::{SyntheticSettings, tiny_config, write_checkpoint};
use crate::{CheckpointSettings, Family, Nf4Settings, Quantisation};

fn quantised(double_quant: bool) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let nf4 = Nf4Settings { double_quant, ..Nf4Settings::default() };
    let quantisation = Some(Quantisation { nf4, ..Quantisation::default() });
    let settings = SyntheticSettings { quantisation, ..SyntheticSettings::default() };
    write_checkpoint(dir.path(), &tiny_config(Family::DeepSeek), &settings).unwrap();
    dir
}

fn open(dir: &Path, mmap: bool) -> Checkpoint {
    Checkpoint::open(dir, &CheckpointSettings { mmap }).unwrap()
}

fn names(checkpoint: &Checkpoint) -> Vec<String> {
    let quantised = checkpoint.tensors().filter(|entry| entry.quantised.is_some());
    quantised.map(|entry| entry.name.to_owned()).collect()
}

#[test]
fn parts_by_themselves_are_those_of_the_whole_tensor() {
    for (double_quant, mmap) in [(false, false), (false, true), (true, false), (true, true)] {
        let dir = quantised(double_quant);
        let checkpoint = open(dir.path(), mmap);
        let names = names(&checkpoint);
        assert!(!names.is_empty());
        for name in names {
            let whole = checkpoint.read_nf4(&name).unwrap();
            let rest = checkpoint.read_nf4_rest(&name).unwrap();
            let mut scales = vec![0xAA; checkpoint.four_bit(&name).unwrap().parts.absmax.bytes];
            let middle = scales.len() / 8 * 4;
            checkpoint.read_scales_into(&name, middle, &mut scales[middle..]).unwrap();
            checkpoint.read_scales_into(&name, 0, &mut scales[..middle]).unwrap();
            assert_eq!(bits(&rest.values), bits(whole.values()));
            match (whole.scales(), rest.nested) {
                (Scales::Plain(absmax), None) => {
                    let read = scales.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
                    assert!(read.eq(absmax.iter().copied()), "{name}");
                }
                (Scales::Double { codes, map, nested }, Some(rest)) => {
                    assert_eq!((&scales[..], &rest.scales[..]), (&codes[..], &nested[..]));
                    assert_eq!(bits(&rest.map[..]), bits(&map[..]));
                }
                other => panic!("{other:?}"),
            }
            assert!(checkpoint.read_scales_into(&name, 4, &mut scales).is_err());
        }
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Puts a number to place `index` of a part.
fn put(checkpoint: &Checkpoint, part: Slot, index: u64, value: f32) {
    let mut file = OpenOptions::new().write(true).open(checkpoint.shards[part.shard].path()).unwrap();
    file.seek(SeekFrom::Start(part.offset + 4 * index)).unwrap();
    file.write_all(&value.to_le_bytes()).unwrap();
}

/// What is wrong with a tensor as a whole, and with its parts by themselves.
fn faults(checkpoint: &Checkpoint, name: &str) -> (Option<String>, Option<String>) {
    let parts = checkpoint.read_nf4_rest(name).and_then(|_| {
        let mut scales = vec![0; checkpoint.four_bit(name)?.parts.absmax.bytes];
        // From the second scale on, to see that places are counted from the tensor's first.
        checkpoint.read_scales_into(name, 4, &mut scales[4..])
    });
    let told = |error: ModelError| error.to_string();
    (checkpoint.read_nf4(name).err().map(told), parts.err().map(told))
}

#[test]
fn the_same_faults_are_found() {
    type Damage = (bool, fn(&Parts) -> Slot, u64, f32);
    let damages: [Damage; 7] = [
        (true, |parts| parts.quant_map, 3, f32::NAN),
        (true, |parts| parts.nested.unwrap().0, 0, f32::INFINITY),
        (true, |parts| parts.nested.unwrap().1, 200, f32::NEG_INFINITY),
        (true, |parts| parts.nested.unwrap().1, 7, f32::NAN),
        (false, |parts| parts.quant_map, 15, f32::INFINITY),
        (false, |parts| parts.absmax, 1, f32::NAN),
        (false, |parts| parts.absmax, 2, f32::NEG_INFINITY),
    ];
    for (double_quant, part, index, value) in damages {
        let dir = quantised(double_quant);
        let checkpoint = open(dir.path(), false);
        let name = names(&checkpoint).swap_remove(1);
        put(&checkpoint, part(checkpoint.four_bit(&name).unwrap().parts), index, value);
        let (whole, parts) = faults(&checkpoint, &name);
        assert!(whole.is_some());
        assert_eq!(whole, parts);
    }
}

#[test]
fn a_scale_that_overflows_when_it_is_restored_is_found_only_where_a_code_asks_for_it() {
    let dir = quantised(true);
    let checkpoint = open(dir.path(), false);
    let name = names(&checkpoint).swap_remove(1);
    let (scales, map) = checkpoint.four_bit(&name).unwrap().parts.nested.unwrap();
    let entries = *checkpoint.read_nf4_rest(&name).unwrap().nested.unwrap().map;
    put(&checkpoint, scales, 0, 1e30);
    let mut overflows = 0;
    for (entry, value) in entries.into_iter().enumerate() {
        put(&checkpoint, map, entry as u64, 1e30);
        let (whole, parts) = faults(&checkpoint, &name);
        overflows += usize::from(whole.is_some());
        assert_eq!(whole, parts);
        put(&checkpoint, map, entry as u64, value);
    }
    assert!((1..256).contains(&overflows), "{overflows}");
}
