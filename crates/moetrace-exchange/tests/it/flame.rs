//! Captures as FLAME-MoE publishes them: lists of any length of halves and of 16-bit ids, a file a layer in several row
//! groups, token ids in files of their own.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float16Builder, Int16Builder, Int32Array, ListBuilder, RecordBatch};
use half::f16;
use moetrace_exchange::{ImportLayout, ImportSettings};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

use crate::support::{imported, rows, settings};

const TOKENS: usize = 23;
const CHOSEN: usize = 6;

/// Six different ones of 64 for token t of a layer.
fn id(layer: usize, t: usize, rank: usize) -> i16 {
    ((layer * 17 + t * 5 + rank * 11) % 64) as i16
}

/// Falling, and exact in halves.
fn score(t: usize, rank: usize) -> f32 {
    (40 - 4 * rank - t % 3) as f32 / 256.0
}

fn write(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(7)).build();
    let mut writer =
        ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn capture(root: &Path) {
    let (actives, samples) = (root.join("actives/iter_1000"), root.join("samples"));
    std::fs::create_dir_all(&actives).unwrap();
    std::fs::create_dir_all(&samples).unwrap();
    for layer in [2, 3] {
        let mut indices = ListBuilder::new(Int16Builder::new());
        let mut scores = ListBuilder::new(Float16Builder::new());
        for t in 0..TOKENS {
            for rank in 0..CHOSEN {
                indices.values().append_value(id(layer, t, rank));
                scores.values().append_value(f16::from_f32(score(t, rank)));
            }
            indices.append(true);
            scores.append(true);
        }
        let columns: Vec<(&str, ArrayRef)> =
            vec![("scores", Arc::new(scores.finish())), ("indices", Arc::new(indices.finish()))];
        write(&actives.join(format!("layer_{layer:02}.parquet")), columns);
    }
    for (file, tokens) in [(0, 0..9), (1, 9..TOKENS as i32)] {
        let ids: ArrayRef = Arc::new(Int32Array::from_iter_values(tokens.map(|t| t + 50)));
        write(&samples.join(format!("{file:05}.parquet")), vec![("token_id", ids)]);
    }
}

fn of(root: &Path) -> ImportSettings {
    let settings = settings(ImportLayout::Flame, &[("pile", root)]);
    ImportSettings { experts: Some(64), text_tokens: Some(10), ..settings }
}

#[test]
fn every_row_of_a_published_capture_is_in_the_run_and_loads_are_those_of_a_naive_count() {
    let dir = tempfile::tempdir().unwrap();
    let (root, run) = (dir.path().join("capture"), dir.path().join("run"));
    capture(&root);
    let report = imported(&of(&root), &run).unwrap();
    assert_eq!((report.tokens, report.samples), (TOKENS as u64, 3));
    assert_eq!(report.layers.iter().map(|l| l.layer).collect::<Vec<_>>(), [2, 3]);
    for layer in &report.layers {
        let mut loads = vec![0; 64];
        for t in 0..TOKENS {
            (0..CHOSEN).for_each(|rank| loads[id(layer.layer.into(), t, rank) as usize] += 1);
        }
        assert_eq!(layer.loads, loads);
    }
    for (t, row) in rows(&run, "pile").iter().enumerate() {
        assert_eq!((row.sample_id as usize, usize::from(row.position)), (t / 10, t % 10));
        assert_eq!(row.token_id, Some(t as u32 + 50));
        for layer in &row.layers {
            let ids: Vec<u16> = (0..CHOSEN).map(|rank| id(layer.layer.into(), t, rank) as u16).collect();
            let scores: Vec<f32> = (0..CHOSEN).map(|rank| score(t, rank)).collect();
            assert_eq!((&layer.experts, layer.weights.as_ref()), (&ids, Some(&scores)));
        }
    }
}

#[test]
fn a_capture_whose_files_do_not_belong_together_is_refused_by_the_name_of_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("capture");
    capture(&root);
    let refused = |what: &str| {
        let error = imported(&of(&root), &dir.path().join("run")).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
        capture(&root);
    };
    std::fs::remove_file(root.join("samples/00001.parquet")).unwrap();
    refused("samples");
    let ids: ArrayRef = Arc::new(Int32Array::from_iter_values(0..TOKENS as i32));
    write(&root.join("actives/iter_1000/layer_03.parquet"), vec![("indices", ids)]);
    refused("layer_03.parquet");
    std::fs::write(root.join("actives/iter_1000/layer_02.parquet"), b"PAR1").unwrap();
    refused("layer_02.parquet");
}
