//! What each column flag adds, changes or leaves out.

use std::path::{Path, PathBuf};

use moetrace_trace::{TokenRow, read_columns, read_rows, read_samples};

use crate::program::{succeeds, texts};

/// Collects the river texts and gives the run folder and its only shard's data file.
fn collect(dir: &Path, name: &str, more: &[&str]) -> (PathBuf, PathBuf) {
    let out = dir.join(name);
    let dataset = texts(dir);
    let args = ["collect", "--quiet", "--dataset", &dataset, "--out", out.to_str().unwrap()];
    succeeds(&[&args[..], more].concat());
    (out.clone(), out.join("data/river-00000-of-00001.parquet"))
}

fn rows(data: &Path) -> Vec<TokenRow> {
    read_rows(data, usize::MAX).unwrap()
}

#[test]
fn without_flags_a_shard_has_place_token_and_four_columns_a_layer() {
    let dir = tempfile::tempdir().unwrap();
    let (out, data) = collect(dir.path(), "run", &[]);
    let mut expected: Vec<String> =
        ["dataset", "sample_id", "position", "token_id"].map(str::to_owned).into();
    for layer in 1..=3 {
        expected.extend(["experts", "weights", "margin", "gate_entropy"].map(|c| format!("{c}_{layer:02}")));
    }
    assert_eq!(read_columns(&data).unwrap(), expected);
    assert!(out.join("tokens.parquet").exists() && !out.join("hidden").exists());
    for row in rows(&data) {
        for layer in &row.layers {
            let weights = layer.weights.as_ref().unwrap();
            assert!(weights.is_sorted_by(|a, b| a >= b), "{weights:?}");
            // Ten bits of mantissa are kept of 23.
            assert!(weights.iter().all(|w| w.to_bits().trailing_zeros() >= 13 || *w < 1e-4));
        }
    }
}

#[test]
fn flags_add_columns_and_change_no_other_value() {
    let dir = tempfile::tempdir().unwrap();
    let (_, plain) = collect(dir.path(), "plain", &[]);
    let more = ["--router-logits", "--nll", "--hidden", "4"];
    let (out, data) = collect(dir.path(), "more", &more);
    let columns = read_columns(&data).unwrap();
    for name in ["nll", "logits_01", "logits_02", "logits_03"] {
        assert!(columns.iter().any(|c| c == name), "{name} is missing in {columns:?}");
    }
    assert_eq!(rows(&data), rows(&plain));
    let hidden = out.join("hidden/river-00000-of-00001.parquet");
    // Four rows of the shard, once for each of three layers.
    assert_eq!(moetrace_trace::verify_footer(&hidden).unwrap(), 12);
    assert_eq!(read_columns(&hidden).unwrap(), ["sample_id", "position", "layer", "hidden"]);
}

#[test]
fn full_weights_keep_the_digits_that_half_ones_round_away() {
    let dir = tempfile::tempdir().unwrap();
    let (_, half) = collect(dir.path(), "half", &["--precision", "f32"]);
    let (_, full) = collect(dir.path(), "full", &["--precision", "f32", "--weights", "f32"]);
    let (half, full) = (rows(&half), rows(&full));
    assert_eq!(half.len(), full.len());
    let mut longer = 0;
    for (h, f) in half.iter().zip(&full) {
        for (h, f) in h.layers.iter().zip(&f.layers) {
            assert_eq!(h.experts, f.experts);
            for (h, f) in h.weights.iter().flatten().zip(f.weights.iter().flatten()) {
                // Half a unit in the last of ten places, to nearest.
                assert!((h - f).abs() <= f / 2048.0, "{h} for {f}");
                longer += usize::from(f.to_bits().trailing_zeros() < 13);
            }
        }
    }
    assert!(longer > half.len(), "only {longer} weights have more than ten bits");
}

#[test]
fn without_tokens_no_file_of_the_run_holds_an_id_or_a_word() {
    let dir = tempfile::tempdir().unwrap();
    let (out, data) = collect(dir.path(), "run", &["--no-tokens", "--nll"]);
    assert!(!read_columns(&data).unwrap().iter().any(|c| c == "token_id"));
    assert!(rows(&data).iter().all(|row| row.token_id.is_none()));
    let samples = read_samples(&out.join("samples/river-00000-of-00001.parquet")).unwrap();
    assert_eq!(samples.len(), 6);
    assert!(samples.iter().all(|s| s.text.is_none()));
    assert!(!out.join("tokens.parquet").exists());
    // Files that are not compressed would show a text as it is.
    let mut looked = 0;
    let mut open = vec![out];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let bytes = std::fs::read(&path).unwrap();
            for word in [&b"bends twice"[..], b"reaches the mill"] {
                assert!(!bytes.windows(word.len()).any(|w| w == word), "{} holds a text", path.display());
            }
            looked += 1;
        }
    }
    assert!(looked >= 6, "only {looked} files");
}
