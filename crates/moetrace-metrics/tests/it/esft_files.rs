//! The reader of published ESFT runs, on a run generated in their format.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use moetrace_metrics::{MetricsReport, MetricsSettings, RoutingMetrics};

use crate::reader::EsftRun;

const EXPERTS: usize = 16;
const CHOSEN: usize = 6;
const LAYERS: [u16; 3] = [1, 2, 10];
/// The length of the last text is 1; no two are alike.
const LENGTHS: [usize; 4] = [37, 5, 120, 1];

/// Numerical Recipes' 32-bit congruential generator: any numbers will do.
fn next(state: &mut u32) -> u32 {
    *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
    *state >> 8
}

/// K distinct experts in no order, and weights of four decimals in no order.
fn token(state: &mut u32, layer: u16) -> Vec<(usize, String)> {
    let mut left: Vec<usize> = (0..EXPERTS).collect();
    let draw = |_| {
        // Squared, so that low ids (high ones in even layers) are chosen more often.
        let u = f64::from(next(state)) / f64::from(1u32 << 24);
        let id = left.remove((u * u * left.len() as f64) as usize);
        let id = if layer.is_multiple_of(2) { EXPERTS - 1 - id } else { id };
        (id, format!("{:.4}", f64::from(next(state) % 2000) / 10_000.0))
    };
    (0..CHOSEN).map(draw).collect()
}

/// Writes a run and its summary, computed here from the printed numbers; `decimals` as in the summary.
fn generate(folder: &Path, decimals: usize) {
    let mut state = 7;
    let (mut token_scores, mut gate_scores) = (BTreeMap::new(), BTreeMap::new());
    for layer in LAYERS {
        let (mut counts, mut sums, mut file) = ([0f64; EXPERTS], [0f64; EXPERTS], String::new());
        for len in LENGTHS {
            let slots: Vec<_> = (0..len).flat_map(|_| token(&mut state, layer)).collect();
            let ids: Vec<_> = slots.iter().map(|(id, _)| id.to_string()).collect();
            let weights: Vec<_> = slots.iter().map(|(_, weight)| weight.as_str()).collect();
            writeln!(file, "{}\t\t{}", ids.join("\t"), weights.join("\t")).unwrap();
            for (id, weight) in &slots {
                counts[*id] += 1.0;
                sums[*id] += weight.parse::<f64>().unwrap();
            }
        }
        fs::write(folder.join(format!("expert_weights_{layer}.txt")), file).unwrap();
        let tokens = LENGTHS.iter().sum::<usize>() as f64;
        let scores = |sums: [f64; EXPERTS], per: f64| -> BTreeMap<usize, f64> {
            let rounded = sums.map(|sum| format!("{:.decimals$}", sum / per).parse().unwrap());
            rounded.into_iter().enumerate().collect()
        };
        token_scores.insert(layer, scores(counts, CHOSEN as f64 * tokens));
        gate_scores.insert(layer, scores(sums, tokens));
    }
    let summary = serde_json::json!({ "token_scores": token_scores, "gate_scores": gate_scores });
    fs::write(folder.join("summary.json"), summary.to_string()).unwrap();
}

fn check(folder: &Path) -> (EsftRun, MetricsReport) {
    let run = EsftRun::read(folder, CHOSEN).unwrap();
    let mut metrics = RoutingMetrics::new(&run.geometry, &MetricsSettings::default());
    run.play(&mut metrics).unwrap();
    (run, metrics.report())
}

#[test]
fn scores_of_a_generated_run_agree_with_its_summary_as_far_as_that_is_rounded() {
    let folder = tempfile::tempdir().unwrap();
    generate(folder.path(), 4);
    let (run, report) = check(folder.path());
    assert_eq!((run.files, run.samples(), run.tokens()), (3, 4, 163));
    assert_eq!((report.tokens, report.samples, report.experts), (163, 4, EXPERTS));
    assert_eq!(report.layers.iter().map(|l| l.layer).collect::<Vec<_>>(), LAYERS);
    let (token_ratio, gate_score) = run.worst_deviation(&report).unwrap();
    // Half a unit of the fourth decimal, and 1e-8 since a weight is held in f32.
    assert!(token_ratio <= 5e-5 + 1e-8 && gate_score <= 5e-5 + 1e-8, "{token_ratio} {gate_score}");
    assert!(token_ratio > 0.0 && gate_score > 0.0, "a rounded summary is never met exactly");
}

#[test]
fn scores_of_a_generated_run_agree_with_an_unrounded_summary() {
    let folder = tempfile::tempdir().unwrap();
    generate(folder.path(), 17);
    let (run, report) = check(folder.path());
    let (token_ratio, gate_score) = run.worst_deviation(&report).unwrap();
    // Weights below 0.25 are held in f32: each is off by at most 2^-27 = 7.5e-9.
    assert!(token_ratio < 1e-14 && gate_score < 7.5e-9, "{token_ratio} {gate_score}");
}

#[test]
fn a_summary_of_another_run_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    generate(folder.path(), 4);
    fs::rename(folder.path().join("expert_weights_1.txt"), folder.path().join("swap")).unwrap();
    fs::copy(folder.path().join("expert_weights_2.txt"), folder.path().join("expert_weights_1.txt")).unwrap();
    let (run, report) = check(folder.path());
    let (token_ratio, gate_score) = run.worst_deviation(&report).unwrap();
    assert!(token_ratio > 1e-3 && gate_score > 1e-3, "{token_ratio} {gate_score}");
}

#[test]
fn broken_files_are_refused_with_their_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("expert_weights_2.txt");
    for (text, expected) in [
        ("0\t1\t2\t3\t4\t5\t0.1", "line 1: no two tabs"),
        ("0\t1\t2\t3\t4\t5\t\t0.1", "line 1: 6 ids and 1 weights"),
        ("0\t1\t\t0.1\t0.2", "line 1: 2 ids, expected a multiple of 6"),
        ("0\t1\t2\t3\t4\t5\t\t1\t1\t1\t1\t1\t1\n", "other lengths than in the first layer"),
        ("a\t1\t2\t3\t4\t5\t\t1\t1\t1\t1\t1\t1\n", "line 1: invalid digit"),
    ] {
        generate(folder.path(), 4);
        fs::write(&path, text).unwrap();
        let error = format!("{:#}", EsftRun::read(folder.path(), CHOSEN).unwrap_err());
        assert!(error.contains("expert_weights_2.txt") && error.contains(expected), "{error}");
    }
}
