//! ESFT score files, generated in their format with a summary that is computed apart.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use moetrace_exchange::{ExchangeError, ImportLayout, ImportSettings};
use moetrace_metrics::MetricsReport;

use crate::support::{imported, rows, settings};

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
        (id, format!("{:.4}", f64::from(1 + next(state) % 2000) / 10_000.0))
    };
    (0..CHOSEN).map(draw).collect()
}

type Scores = BTreeMap<u16, [f64; EXPERTS]>;

/// Writes a folder of score files; gives token and gate scores, computed here from the printed numbers.
fn generate(folder: &Path) -> (Scores, Scores) {
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
        token_scores.insert(layer, counts.map(|count| count / (CHOSEN as f64 * tokens)));
        gate_scores.insert(layer, sums.map(|sum| sum / tokens));
    }
    (token_scores, gate_scores)
}

fn of(folder: &Path) -> ImportSettings {
    ImportSettings {
        experts: Some(EXPERTS),
        chosen: Some(CHOSEN),
        ..settings(ImportLayout::Esft, &[("law", folder)])
    }
}

/// The largest distance between the report and the scores: of token ratios, of gate scores.
fn worst(report: &MetricsReport, (token_scores, gate_scores): &(Scores, Scores)) -> (f64, f64) {
    let mut worst = (0f64, 0f64);
    for layer in &report.layers {
        for (ours, theirs) in layer.esft.token_ratio.iter().zip(&token_scores[&layer.layer]) {
            worst.0 = worst.0.max((ours - theirs).abs());
        }
        for (ours, theirs) in layer.esft.gate_score.as_ref().unwrap().iter().zip(&gate_scores[&layer.layer]) {
            worst.1 = worst.1.max((ours - theirs).abs());
        }
    }
    worst
}

#[test]
fn an_imported_run_has_the_scores_of_its_files_and_says_what_they_lack() {
    let (folder, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let scores = generate(folder.path());
    let run = out.path().join("run");
    let report = imported(&of(folder.path()), &run).unwrap();
    assert_eq!((report.tokens, report.samples, report.experts, report.bos_excluded), (163, 4, EXPERTS, 0));
    assert_eq!(report.layers.iter().map(|l| l.layer).collect::<Vec<_>>(), LAYERS);
    let (token_ratio, gate_score) = worst(&report, &scores);
    // Weights below 0.25 are held in f32: each is off by at most 2^-27 = 7.5e-9, and six of them may be one expert's.
    assert!(token_ratio < 1e-14 && gate_score < 7.5e-9, "{token_ratio} {gate_score}");
    assert_eq!((report.rows_with_tie, report.overall.gate_entropy_bits), (None, None));
    assert!(report.overall.chosen_entropy_bits.is_some());

    let manifest = moetrace_run::RunFolder::new(&run).manifest().unwrap();
    let facts = manifest.imported.unwrap();
    assert_eq!(
        (facts.layout.as_str(), facts.not_recorded),
        ("esft", vec!["margin".into(), "gate_entropy".into()])
    );
    let first = &rows(&run, "law")[0];
    assert_eq!((first.token_id, first.layers[0].margin, first.layers[0].gate_entropy), (None, None, None));
    let weights = first.layers[0].weights.as_ref().unwrap();
    assert!(weights.is_sorted_by(|a, b| a >= b), "{weights:?}");
}

#[test]
fn the_same_import_again_changes_nothing_and_other_files_are_refused() {
    let (folder, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    generate(folder.path());
    let run = out.path().join("run");
    imported(&of(folder.path()), &run).unwrap();
    let shard = run.join("data/law-00000-of-00003.parquet");
    let before = (fs::read(&shard).unwrap(), fs::metadata(&shard).unwrap().modified().unwrap());
    imported(&of(folder.path()), &run).unwrap();
    assert!(before == (fs::read(&shard).unwrap(), fs::metadata(&shard).unwrap().modified().unwrap()));
    // A shard that is gone is made again, from the middle of the files.
    let record = run.join("state/commits/law-00001-of-00003.json");
    let whole = fs::read(run.join("data/law-00001-of-00003.parquet")).unwrap();
    fs::remove_file(&record).unwrap();
    imported(&of(folder.path()), &run).unwrap();
    assert!(whole == fs::read(run.join("data/law-00001-of-00003.parquet")).unwrap());

    let path = folder.path().join("expert_weights_2.txt");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("0.0", "0.1", 1)).unwrap();
    let error = imported(&of(folder.path()), &run).unwrap_err();
    assert!(error.to_string().contains("was started with other settings"), "{error}");
}

#[test]
fn broken_files_are_refused_with_their_line_and_nothing_is_written() {
    let (folder, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    generate(folder.path());
    let path = folder.path().join("expert_weights_2.txt");
    let whole = fs::read_to_string(&path).unwrap();
    let (first, rest) = whole.split_once('\n').unwrap();
    let run = out.path().join("run");
    let with = |line: &str| format!("{first}\n{line}\n{}", rest.split_once('\n').unwrap().1);
    let ones = "\t\t1\t1\t1\t1\t1\t1";
    for (text, expected) in [
        (with("0\t1\t2\t3\t4\t5\t0.1"), "expert_weights_2.txt, line 2: no two tabs between ids and weights"),
        (with("0\t1\t2\t3\t4\t5\t\t0.1"), "line 2: 6 ids and 1 weights"),
        (with("0\t1\t\t0.1\t0.2"), "line 2: 2 ids, expected a multiple of 6"),
        (with(&format!("0\t1\t2\t3\t4\t5{ones}")), "line 2: 1 tokens, 5 in the first layer"),
        (with(&format!("a\t1\t2\t3\t4\t5{ones}")), "line 2: \"a\" is no number"),
        (with(&format!("0\t1\t2\t3\t4\t16{ones}")), "line 2: token 0: expert 16, expected 0 to 15"),
        (with(&format!("0\t1\t2\t3\t4\t4{ones}")), "line 2: token 0: expert 4 is chosen twice by one token"),
        (with("0\t1\t2\t3\t4\t5\t\t1\t1\t-1\t1\t1\t1"), "line 2: token 0: a weight is -1"),
        (format!("{first}\n"), "expert_weights_2.txt: other texts than in the first layer"),
    ] {
        fs::write(&path, text).unwrap();
        let error = imported(&of(folder.path()), &run).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(!run.exists(), "{expected}");
    }
}

#[test]
fn a_layer_is_not_lost_for_its_file_s_name() {
    let (folder, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    generate(folder.path());
    let run = out.path().join("run");
    let named = |name: &str| {
        let path = folder.path().join(name);
        fs::copy(folder.path().join("expert_weights_1.txt"), &path).unwrap();
        let error = imported(&of(folder.path()), &run).unwrap_err().to_string();
        fs::remove_file(&path).unwrap();
        assert!(!run.exists(), "{error}");
        error
    };
    let expected = "expert_weights_70000.txt: \"70000\" is no number of a layer, expected 0 to 65535";
    assert!(named("expert_weights_70000.txt").ends_with(expected));
    assert!(named("expert_weights_xx.txt").ends_with("\"xx\" is no number of a layer, expected 0 to 65535"));
    let error = named("expert_weights_01.txt");
    assert!(error.contains("expert_weights_1.txt: it is of layer 1, and so is "), "{error}");
    assert!(error.ends_with("expert_weights_01.txt"), "{error}");
    imported(&of(folder.path()), &run).unwrap();
}

#[test]
fn what_the_files_do_not_say_is_asked_for_by_its_flag() {
    let (folder, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    generate(folder.path());
    let asked = |settings: ImportSettings| match imported(&settings, &out.path().join("run")) {
        Err(ExchangeError::NotSaid { flag, .. }) => flag,
        other => unreachable!("{other:?}"),
    };
    assert_eq!(asked(ImportSettings { chosen: None, ..of(folder.path()) }), "--experts-per-token");
    assert_eq!(asked(ImportSettings { experts: None, ..of(folder.path()) }), "--experts");
    // A summary names every expert.
    fs::write(folder.path().join("summary.json"), r#"{"token_scores": {"1": {"0": 0.5, "15": 0.5}}}"#)
        .unwrap();
    let settings = ImportSettings { experts: None, ..of(folder.path()) };
    assert_eq!(imported(&settings, &out.path().join("run")).unwrap().experts, EXPERTS);
    let empty = tempfile::tempdir().unwrap();
    let error = imported(&of(empty.path()), &out.path().join("other")).unwrap_err().to_string();
    assert!(error.contains("holds no expert_weights_LAYER.txt"), "{error}");
}
