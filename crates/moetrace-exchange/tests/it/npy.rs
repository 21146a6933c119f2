//! Arrays as serving engines return them.

use std::path::Path;

use moetrace_exchange::{ImportLayout, ImportSettings};
use moetrace_routing::WeightPrecision;

use crate::support::{imported, npy, rows, settings};

/// 2 of 8 experts in `depth` layers: token t of layer l has l + t and l + t + 1, modulo 8.
fn ids(tokens: usize, depth: usize) -> Vec<i64> {
    let of = |at: usize| [at % 8, (at + 1) % 8];
    (0..tokens).flat_map(|t| (0..depth).flat_map(move |l| of(l * 3 + t))).map(|id| id as i64).collect()
}

fn bytes<T, const N: usize>(values: &[i64], to: fn(i64) -> T, bytes: fn(T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|&value| bytes(to(value))).collect()
}

fn of(path: &Path) -> ImportSettings {
    ImportSettings { experts: Some(8), ..settings(ImportLayout::Npy, &[("served", path)]) }
}

#[test]
fn arrays_of_any_whole_numbers_give_the_same_run_and_without_weights_it_has_none() {
    let values = ids(5, 3);
    let kinds: [(&str, Vec<u8>); 4] = [
        ("|u1", bytes(&values, |v| v as u8, u8::to_le_bytes)),
        ("<i2", bytes(&values, |v| v as i16, i16::to_le_bytes)),
        ("<i4", bytes(&values, |v| v as i32, i32::to_le_bytes)),
        ("<i8", bytes(&values, |v| v, i64::to_le_bytes)),
    ];
    for (descr, data) in kinds {
        let dir = tempfile::tempdir().unwrap();
        let (file, run) = (dir.path().join("request.npy"), dir.path().join("run"));
        npy(&file, descr, &[5, 3, 2], &data);
        let report = imported(&of(&file), &run).unwrap();
        assert_eq!((report.tokens, report.samples, report.layers.len()), (5, 1, 3), "{descr}");
        assert_eq!((report.layers[0].chosen_entropy_bits, &report.layers[0].esft.gate_score), (None, &None));
        let rows = rows(&run, "served");
        assert_eq!((rows[4].position, rows[4].token_id), (4, None));
        assert_eq!((rows[4].layers[2].experts.as_slice(), &rows[4].layers[2].weights), (&[2, 3][..], &None));
    }
}

#[test]
fn a_folder_is_a_text_a_file_with_weights_and_tokens_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, run) = (dir.path().join("requests"), dir.path().join("run"));
    std::fs::create_dir(&folder).unwrap();
    for (name, tokens) in [("b", 3), ("a", 4)] {
        let data = bytes(&ids(tokens, 2), |v| v as i32, i32::to_le_bytes);
        npy(&folder.join(format!("{name}.npy")), "<i4", &[tokens, 2, 2], &data);
        let weights: Vec<u8> =
            [0.25f32, 0.5].repeat(tokens * 2).iter().flat_map(|w| w.to_le_bytes()).collect();
        npy(&folder.join(format!("{name}.weights.npy")), "<f4", &[tokens, 2, 2], &weights);
        let words: Vec<u8> = (0..tokens as i64).flat_map(|id| (id + 100).to_le_bytes()).collect();
        npy(&folder.join(format!("{name}.tokens.npy")), "<i8", &[tokens], &words);
    }
    let settings = ImportSettings { layers: Some(vec![3, 5]), ..of(&folder) };
    let report = imported(&settings, &run).unwrap();
    assert_eq!((report.tokens, report.samples), (7, 2));
    let rows = rows(&run, "served");
    let places: Vec<(u32, u16, Option<u32>)> =
        rows.iter().map(|r| (r.sample_id, r.position, r.token_id)).collect();
    assert_eq!(places[..2], [(0, 0, Some(100)), (0, 1, Some(101))]);
    assert_eq!(places[4..], [(1, 0, Some(100)), (1, 1, Some(101)), (1, 2, Some(102))]);
    // The second weight is the larger one: ranks are by weight.
    assert_eq!((rows[0].layers[0].layer, rows[0].layers[0].experts.as_slice()), (3, &[1, 0][..]));
    assert_eq!(rows[0].layers[0].weights.as_deref(), Some(&[0.5, 0.25][..]));
    std::fs::remove_file(folder.join("b.tokens.npy")).unwrap();
    let error = imported(&settings, &dir.path().join("other")).unwrap_err().to_string();
    assert!(error.contains("b.tokens.npy: is missing, the first text has one"), "{error}");
}

#[test]
fn of_an_array_with_all_layers_those_that_have_a_router_are_taken_and_long_arrays_are_cut() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("request.npy");
    // Layer 0 has no router: zeros stand there, as a buffer that nobody filled.
    let mut values = ids(10, 3);
    for token in values.chunks_exact_mut(6) {
        token[..2].fill(0);
    }
    npy(&file, "<i4", &[10, 3, 2], &bytes(&values, |v| v as i32, i32::to_le_bytes));
    let error = imported(&of(&file), &dir.path().join("all")).unwrap_err().to_string();
    assert!(error.contains("row 0: layer 0 of the array: expert 0 is chosen twice by one token"), "{error}");
    let settings = ImportSettings { layers: Some(vec![1, 2]), text_tokens: Some(4), ..of(&file) };
    let report = imported(&settings, &dir.path().join("run")).unwrap();
    assert_eq!((report.samples, report.layers[0].layer, report.layers[1].layer), (3, 1, 2));
    let rows = rows(&dir.path().join("run"), "served");
    let places: Vec<(u32, u16)> = rows.iter().map(|r| (r.sample_id, r.position)).collect();
    assert_eq!(places[3..5], [(0, 3), (1, 0)]);
    assert_eq!(rows[9].layers[0].experts, [(3 + 9) % 8, (4 + 9) % 8]);
    let error = imported(&ImportSettings { layers: Some(vec![1, 3]), ..of(&file) }, &dir.path().join("x"));
    assert!(error.unwrap_err().to_string().contains("nor a layer 3"));
}

#[test]
fn arrays_that_are_none_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("request.npy");
    let refusal =
        |settings: ImportSettings| imported(&settings, &dir.path().join("run")).unwrap_err().to_string();
    let data = bytes(&ids(5, 3), |v| v as i32, i32::to_le_bytes);
    for (descr, shape, data, said) in [
        ("<i4", &[5, 6][..], &data[..], "its shape is [5, 6], expected [tokens, layers, K]"),
        ("<i4", &[5, 3, 2], &data[..40], "bytes, its header asks for"),
        ("<f4", &[5, 3, 2], &data[..], "does not hold whole numbers"),
        ("|O", &[5, 3, 2], &data[..], "its elements are \"|O\""),
        ("<i4", &[0, 3, 2], &[], "expected [1 or more, 3, 2]"),
        ("<i4", &[usize::MAX, 3, 2], &data[..], "more than 64 bits count"),
    ] {
        npy(&file, descr, shape, data);
        let error = refusal(of(&file));
        assert!(error.contains("request.npy") && error.contains(said), "{error}");
    }
    std::fs::write(&file, b"PK\x03\x04 a zip").unwrap();
    assert!(refusal(of(&file)).contains("it does not begin as a .npy file does"));
    std::fs::write(&file, b"\x93NUMPY\x01\x00\xff\xff").unwrap();
    assert!(refusal(of(&file)).contains("it ends too early"));
    std::fs::write(&file, b"").unwrap();
    assert!(refusal(of(&file)).contains("it ends too early"));
    assert!(refusal(ImportSettings { experts: None, ..of(&file) }).contains("--experts says it"));
    assert!(!dir.path().join("run").exists());
}

#[test]
fn what_is_wrong_is_told_of_the_file_and_the_row_it_stands_in() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("requests");
    std::fs::create_dir(&folder).unwrap();
    let out = dir.path().join("run");
    let ids_of = |values: &[i64]| bytes(values, |v| v as i32, i32::to_le_bytes);
    let weights = |change: &dyn Fn(&mut [f32])| {
        let mut all = [0.25f32, 0.5].repeat(5 * 2);
        change(&mut all);
        let bytes: Vec<u8> = all.iter().flat_map(|w| w.to_le_bytes()).collect();
        npy(&folder.join("a.weights.npy"), "<f4", &[5, 2, 2], &bytes);
    };
    let tokens = |ids: &[i64]| {
        npy(&folder.join("a.tokens.npy"), "<i8", &[5], &bytes(ids, |v| v, i64::to_le_bytes));
    };
    let refusal = |precision| {
        let settings = ImportSettings { weights: precision, ..of(&folder) };
        let error = imported(&settings, &out).unwrap_err().to_string();
        assert!(!out.exists(), "{error}");
        error.replace(&format!("{}/", folder.display()), "")
    };
    let (full, half) = (WeightPrecision::Full, WeightPrecision::Half);
    npy(&folder.join("a.npy"), "<i4", &[5, 2, 2], &ids_of(&ids(5, 2)));
    tokens(&[0, 1, 2, 3, 4]);
    weights(&|all| all[4 * 3 + 2] = f32::NAN);
    let at = "a.weights.npy, row 3: layer 1 of the array: a weight is";
    assert_eq!(refusal(full), format!("{at} NaN, expected a number of at least 0"));
    weights(&|all| all[4 * 3 + 2] = 40_000.0);
    assert_eq!(refusal(full), format!("{at} 40000, expected at most 32768"));
    weights(&|all| all[4 * 3 + 2] = 1e-42);
    assert_eq!(refusal(half), format!("{at} 1e-42, which --weights f16 makes 0; --weights f32 keeps it"));
    weights(&|_| {});
    tokens(&[0, 1, 2, -3, 4]);
    assert_eq!(refusal(full), "a.tokens.npy, row 3: token id -3, expected 0 to 4294967295");
    tokens(&[0, 1, 2, 1 << 33, 4]);
    assert_eq!(refusal(full), "a.tokens.npy, row 3: token id 8589934592, expected 0 to 4294967295");
    tokens(&[0, 1, 2, 3, 4]);
    let mut high = ids(5, 2);
    high[4 * 2] = -1;
    npy(&folder.join("a.npy"), "<u8", &[5, 2, 2], &bytes(&high, |v| v as u64, u64::to_le_bytes));
    let expected = "a.npy, row 2: layer 0 of the array: expert 9223372036854775807, expected 0 to 7";
    assert_eq!(refusal(full), expected);
    // Weights of an array that is not there: its text is not to be lost in silence.
    npy(&folder.join("a.npy"), "<i4", &[5, 2, 2], &ids_of(&ids(5, 2)));
    std::fs::copy(folder.join("a.weights.npy"), folder.join("c.weights.npy")).unwrap();
    assert_eq!(refusal(full), "c.weights.npy: there is no c.npy beside it");
    std::fs::remove_file(folder.join("c.weights.npy")).unwrap();
    imported(&of(&folder), &out).unwrap();
}

#[test]
#[cfg(unix)]
fn a_pipe_is_refused_and_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("request.npy");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let error = imported(&of(&pipe), &dir.path().join("run")).unwrap_err().to_string();
    assert!(error.ends_with("request.npy: it is no regular file"), "{error}");
}
