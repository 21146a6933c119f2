//! An import with settings that fit most tests, and its run looked at.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use moetrace_exchange::{ExchangeError, ImportHow, ImportLayout, ImportSettings, import};
use moetrace_metrics::MetricsReport;
use moetrace_routing::WeightPrecision;
use moetrace_run::{RunFolder, verify};
use moetrace_trace::{TokenRow, read_rows};

pub(crate) fn settings(layout: ImportLayout, sources: &[(&str, &Path)]) -> ImportSettings {
    ImportSettings {
        layout,
        sources: sources.iter().map(|(name, path)| ((*name).to_owned(), path.to_path_buf())).collect(),
        model: "someone's".into(),
        experts: None,
        chosen: None,
        layers: None,
        text_tokens: None,
        weights: WeightPrecision::Full,
        shard_tokens: 100,
    }
}

/// Imports into `out`, which `verify` must find sound.
pub(crate) fn imported(settings: &ImportSettings, out: &Path) -> Result<MetricsReport, ExchangeError> {
    let folder = RunFolder::new(out);
    let how = ImportHow {
        threads: 1,
        settings: Vec::new(),
        holder: "a test",
        stop: &AtomicBool::new(false),
        repair: false,
        set_aside: None,
    };
    let outcome = import(settings, &folder, how, &mut |_| {})?;
    assert!(outcome.complete);
    assert_eq!(verify(&folder).unwrap().faults, []);
    Ok(outcome.metrics.report())
}

/// Every row of a run's data set, shard after shard.
pub(crate) fn rows(run: &Path, dataset: &str) -> Vec<TokenRow> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(run.join("data"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(&format!("{dataset}-")))
        .collect();
    files.sort();
    files.iter().flat_map(|file| read_rows(file, usize::MAX).unwrap()).collect()
}

/// A `.npy` file as `NumPy` writes it.
pub(crate) fn npy(path: &Path, descr: &str, shape: &[usize], bytes: &[u8]) {
    let lengths: Vec<String> = shape.iter().map(|n| format!("{n},")).collect();
    let mut header =
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({}), }}", lengths.join(" "));
    // The data begin at a multiple of 64 bytes, behind a line break.
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((header.len() as u16).to_le_bytes());
    file.extend(header.as_bytes());
    file.extend(bytes);
    std::fs::write(path, file).unwrap();
}
