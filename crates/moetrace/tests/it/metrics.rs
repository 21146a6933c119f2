//! `moetrace metrics` by the real program: families, groups, tables, several runs.

use std::path::{Path, PathBuf};

use arrow::array::{AsArray as _, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use crate::program::{fails, succeeds};

fn collect(dir: &Path, name: &str, more: &[&str]) -> PathBuf {
    let out = dir.join(name);
    let args = ["collect", "--quiet", "--traces", "12", "--out", out.to_str().unwrap()];
    succeeds(&[&args[..], more].concat());
    out
}

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&succeeds(&[&["metrics", "--json"], args].concat())).unwrap()
}

#[test]
fn every_family_is_counted_the_same_with_any_number_of_threads_and_any_shards() {
    let dir = tempfile::tempdir().unwrap();
    let whole = collect(dir.path(), "whole", &[]);
    let cut = collect(dir.path(), "cut", &["--shard-tokens", "300"]);
    let of = |run: &Path, threads| json(&["--threads", threads, run.to_str().unwrap()]);
    let report = of(&whole, "1");
    for family in ["coactivation", "temporal", "cross_layer", "segments", "groups", "contexts", "vocabulary"]
    {
        assert!(!report[family].is_null(), "{family}");
    }
    assert!(report == of(&cut, "1") && report == of(&cut, "3"), "shards or threads change a number");
    let core = json(&["--core", whole.to_str().unwrap()]);
    let summary: Value = serde_json::from_slice(&std::fs::read(whole.join("summary.json")).unwrap()).unwrap();
    assert_eq!(core, summary["metrics"]);
    assert!(core.as_object().unwrap().iter().all(|(key, value)| report[key] == *value));
}

#[test]
fn a_run_without_token_ids_has_no_vocabulary_and_no_contexts() {
    let dir = tempfile::tempdir().unwrap();
    let run = collect(dir.path(), "run", &["--no-tokens"]);
    let report = json(&[run.to_str().unwrap()]);
    assert!(report["vocabulary"].is_null() && report["contexts"].is_null());
    assert!(!report["temporal"].is_null());
}

#[test]
fn groups_are_printed_when_asked_for_and_families_end_the_text() {
    let dir = tempfile::tempdir().unwrap();
    let run = collect(dir.path(), "run", &[]);
    let run = run.to_str().unwrap();
    let text = succeeds(&["metrics", run, "--by", "position", "--by", "dataset"]);
    for part in ["I(expert; position)", "I(expert; dataset)", "co-activation", "affinity", "predictability"] {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
    assert!(!text.contains("I(expert; label)"));
    assert!(!succeeds(&["metrics", run, "--core"]).contains("co-activation"));
}

#[test]
fn tables_hold_a_row_for_each_expert_pair_and_layer() {
    let dir = tempfile::tempdir().unwrap();
    let run = collect(dir.path(), "run", &[]);
    let tables = dir.path().join("tables");
    succeeds(&["metrics", run.to_str().unwrap(), "--parquet", tables.to_str().unwrap()]);
    for (name, rows) in [("experts", 3 * 64), ("pairs", 3 * 2016), ("layers", 3)] {
        let found = moetrace_trace::verify_footer(&tables.join(format!("{name}.parquet"))).unwrap();
        assert_eq!(found, rows, "{name}");
    }
    assert_eq!(std::fs::read_dir(&tables).unwrap().count(), 3, "nothing else is left there");
    // What lies in these folders is the run's own.
    for folder in ["data", "hidden/tables", "state"] {
        let into = run.join(folder).display().to_string();
        let (code, stderr) = fails(&["metrics", run.to_str().unwrap(), "--parquet", &into]);
        assert_eq!(code, 73, "{stderr}");
        assert!(
            stderr.contains("error[E-FOREIGN]") && stderr.contains("among the files of the run"),
            "{stderr}"
        );
    }
    assert!(succeeds(&["verify", run.to_str().unwrap()]).ends_with("no fault found\n"));
}

/// A column of a table, as numbers; NaN where there is none.
fn column(table: &Path, name: &str) -> Vec<f64> {
    let file = std::fs::File::open(table).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    let numbers = |batch: RecordBatch| -> Vec<f64> {
        let column = batch.column_by_name(name).unwrap();
        let column = cast(column, &DataType::Float64).unwrap();
        column.as_primitive::<Float64Type>().iter().map(|n| n.unwrap_or(f64::NAN)).collect()
    };
    reader.flat_map(|batch| numbers(batch.unwrap())).collect()
}

fn numbers(values: &Value) -> Vec<f64> {
    values.as_array().unwrap().iter().map(|n| n.as_f64().unwrap_or(f64::NAN)).collect()
}

/// Equal to what single precision keeps, in which some numbers are reported.
fn assert_same(found: &[f64], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        let is_same = (a - b).abs() <= 1e-6 * b.abs() || (a.is_nan() && b.is_nan());
        assert!(is_same, "{what}, row {i}: {a}, expected {b}");
    }
}

#[test]
fn tables_hold_the_numbers_of_the_report() {
    let dir = tempfile::tempdir().unwrap();
    let run = collect(dir.path(), "run", &[]);
    let tables = dir.path().join("tables");
    succeeds(&["metrics", run.to_str().unwrap(), "--parquet", tables.to_str().unwrap()]);
    let report = json(&[run.to_str().unwrap()]);
    let of_layers = |report: &Value, value: &dyn Fn(&Value) -> Vec<f64>| -> Vec<f64> {
        report["layers"].as_array().unwrap().iter().flat_map(value).collect()
    };
    let layers = tables.join("layers.parquet");
    for name in [
        "layer",
        "active_experts",
        "unique_pairs",
        "load_entropy_bits",
        "gate_entropy_bits",
        "chosen_entropy_bits",
        "effective_experts",
        "max_vio",
        "cv",
        "gini",
    ] {
        let expected = of_layers(&report, &|layer| vec![layer[name].as_f64().unwrap()]);
        assert_same(&column(&layers, name), &expected, name);
    }
    let reuse = of_layers(&report["temporal"], &|layer| vec![layer["reuse"].as_f64().unwrap()]);
    assert_same(&column(&layers, "reuse"), &reuse, "reuse");

    let experts = tables.join("experts.parquet");
    assert_same(&column(&experts, "load"), &of_layers(&report, &|l| numbers(&l["loads"])), "load");
    for name in ["token_ratio", "gate_score", "sample_token_ratio", "sample_gate_score"] {
        let expected = of_layers(&report, &|layer| numbers(&layer["esft"][name]));
        assert_same(&column(&experts, name), &expected, name);
    }

    let pairs = tables.join("pairs.parquet");
    let both = of_layers(&report["coactivation"], &|layer| numbers(&layer["pair_counts"]));
    assert_same(&column(&pairs, "both"), &both, "both");
    let z = of_layers(&report["coactivation"], &|layer| numbers(&layer["pair_z"]));
    assert_same(&column(&pairs, "z"), &z, "z");
    // The other measures by their formulas (docs/metrics.md), from the loads of the experts that the row names.
    let (tokens, loads) = (report["tokens"].as_f64().unwrap(), column(&experts, "load"));
    let load = |layer: f64, expert: f64| loads[(layer as usize - 1) * 64 + expert as usize];
    let named = ["layer", "expert_a", "expert_b"].map(|name| column(&pairs, name));
    let mut measures: [Vec<f64>; 6] = Default::default();
    for (i, &both) in both.iter().enumerate() {
        let (a, b) = (load(named[0][i], named[1][i]), load(named[0][i], named[2][i]));
        let part = |n: f64, of: f64| if of > 0.0 { n / of } else { 0.0 };
        let lift = part(both * tokens, a * b);
        let pmi = if both > 0.0 { lift.log2() } else { f64::NAN };
        let phi = part(tokens * both - a * b, (a * b * (tokens - a) * (tokens - b)).sqrt());
        let row = [part(both, a), part(both, b), lift, pmi, part(both, a + b - both), phi];
        measures.iter_mut().zip(row).for_each(|(column, value)| column.push(value));
    }
    for (name, expected) in
        ["b_given_a", "a_given_b", "lift", "pmi_bits", "jaccard", "phi"].iter().zip(&measures)
    {
        assert_same(&column(&pairs, name), expected, name);
    }
}

#[test]
fn a_table_for_each_grouping_holds_the_loads_of_every_group() {
    let dir = tempfile::tempdir().unwrap();
    let run = collect(dir.path(), "run", &[]);
    let tables = dir.path().join("tables");
    let by = ["--by", "dataset", "--by", "label", "--by", "position"];
    let args = ["metrics", run.to_str().unwrap(), "--parquet", tables.to_str().unwrap()];
    succeeds(&[&args[..], &by].concat());
    let report = json(&[run.to_str().unwrap()]);
    for groups in report["groups"].as_array().unwrap() {
        let name = groups["by"].as_str().unwrap();
        let each = groups["groups"].as_array().unwrap().iter();
        let loads: Vec<f64> =
            each.flat_map(|group| group["loads"].as_array().unwrap().iter().flat_map(numbers)).collect();
        let table = tables.join(format!("experts-by-{name}.parquet"));
        assert_same(&column(&table, "load"), &loads, name);
        let sum: f64 = column(&table, "group_tokens").iter().sum();
        let tokens = groups["tokens"].as_f64().unwrap();
        assert!((sum - tokens * 3.0 * 64.0).abs() < 0.5, "{name}: {sum}");
    }
    assert_eq!(std::fs::read_dir(&tables).unwrap().count(), 6);
}

#[test]
fn several_runs_stand_side_by_side() {
    let dir = tempfile::tempdir().unwrap();
    let a = collect(dir.path(), "a", &["--precision", "bf16"]);
    let b = collect(dir.path(), "b", &["--precision", "f32"]);
    let runs = [a.to_str().unwrap(), b.to_str().unwrap()];
    let text = succeeds(&[&["metrics"], &runs[..]].concat());
    assert!(runs.iter().all(|run| text.contains(run)) && text.contains("6 of 64"), "{text}");
    let read = json(&runs);
    let bytes = |i: usize| read[i]["model"]["weight_bytes"].as_u64().unwrap();
    assert_eq!(bytes(1), 2 * bytes(0));
    assert_eq!(read[0]["metrics"], json(&runs[..1]));
    let refused = fails(&[&["metrics", "--parquet", "t"], &runs[..]].concat());
    assert!(format!("{refused:?}").contains("--parquet is for one run"), "{refused:?}");
}

/// Two runs of one model over other texts; an imported run knows neither parameters nor bytes.
#[test]
fn what_a_run_does_not_hold_is_not_made_up_and_other_texts_are_noted() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) =
        (collect(dir.path(), "a", &[]), collect(dir.path(), "b", &["--precision", "nf4", "--seed", "9"]));
    let npy = dir.path().join("npy");
    succeeds(&["export", a.to_str().unwrap(), "--layout", "flame", "--out", npy.to_str().unwrap()]);
    let imported = dir.path().join("imported");
    let args = ["import", npy.to_str().unwrap(), "--layout", "flame", "--out", imported.to_str().unwrap()];
    succeeds(&[&args[..], &["--experts", "64", "--text-tokens", "64"]].concat());
    let runs = [&a, &b, &imported].map(|run| run.to_str().unwrap());
    let text = succeeds(&[&["metrics", "--core"], &runs[..]].concat());
    assert!(text.contains("over different texts") && !text.contains("0.00"), "{text}");
    let each: Value =
        serde_json::from_str(&succeeds(&[&["metrics", "--core", "--json"], &runs[..]].concat())).unwrap();
    let plan = succeeds(&["plan", "--traces", "12", "--precision", "nf4", "--json"]);
    let plan: Value = serde_json::from_str(&plan).unwrap();
    assert_eq!(each[1]["model"]["weight_bytes"], plan["estimate"]["weight_bytes"]);
    assert!(each[0]["model"]["weight_bytes"].as_u64() > each[1]["model"]["weight_bytes"].as_u64());
    assert!(each[2]["model"]["total_parameters"].is_null() && each[2]["model"]["weight_bytes"].is_null());
    for flag in [&["--by", "dataset"][..], &["--counts"], &["--esft", "0.1"]] {
        let (code, stderr) = fails(&[&["metrics", runs[0], runs[1]], flag].concat());
        assert_eq!((code, stderr.contains("is for one run")), (2, true), "{stderr}");
    }
}

#[test]
fn counts_are_those_of_the_report_printed_or_written() {
    let dir = tempfile::tempdir().unwrap();
    let run = collect(dir.path(), "run", &["--shard-tokens", "300"]);
    let run = run.to_str().unwrap();
    let (report, counts) = (json(&[run]), json(&[run, "--counts", "--threads", "3"]));
    assert_eq!(counts, json(&[run, "--counts", "--threads", "1"]));
    assert_eq!((&counts["tokens"], &counts["bos_excluded"]), (&report["tokens"], &report["bos_excluded"]));
    for (i, layer) in counts["layers"].as_array().unwrap().iter().enumerate() {
        assert_eq!(layer["loads"], report["layers"][i]["loads"]);
        assert_eq!(layer["pairs"], report["coactivation"]["layers"][i]["pair_counts"]);
        let steps: u64 = layer["transitions"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).sum();
        let k = report["chosen"].as_u64().unwrap();
        assert_eq!(report["temporal"]["layers"][i]["transitions"]["pairs"], steps / (k * k));
    }
    let folder = dir.path().join("tables");
    let text = succeeds(&["metrics", run, "--counts", "--parquet", folder.to_str().unwrap()]);
    assert!(text.contains("above zero"), "{text}");
    let written: Vec<bool> =
        ["loads", "pair-counts", "transitions"].map(|n| folder.join(format!("{n}.parquet")).is_file()).into();
    assert_eq!(written, [true; 3]);
}

/// ESFT's own rule, over the scores in the report: the best first, until they reach the part asked for.
#[test]
fn the_experts_that_esft_would_train_are_printed_as_its_json() {
    let dir = tempfile::tempdir().unwrap();
    let run = collect(dir.path(), "run", &[]);
    let run = run.to_str().unwrap();
    let report = json(&[run, "--core"]);
    for (score, field) in [("gate", "gate_score"), ("token", "token_ratio")] {
        let config: Value =
            serde_json::from_str(&succeeds(&["metrics", run, "--esft", "0.3", "--esft-score", score]))
                .unwrap();
        assert_eq!(
            (&config["shared_experts"], &config["non_expert_modules"]),
            (&false.into(), &false.into())
        );
        for layer in report["layers"].as_array().unwrap() {
            let scores: Vec<f64> =
                layer["esft"][field].as_array().unwrap().iter().map(|s| s.as_f64().unwrap()).collect();
            let chosen = config["experts"][layer["layer"].to_string()].as_array().unwrap();
            let of = |e: &Value| scores[e.as_u64().unwrap() as usize];
            let sum: f64 = chosen.iter().map(of).sum();
            let (total, least) =
                (scores.iter().sum::<f64>(), chosen.iter().map(of).fold(f64::INFINITY, f64::min));
            assert!(sum >= 0.3 * total && sum - least < 0.3 * total, "{chosen:?}");
            let others = (0..scores.len()).filter(|e| !chosen.contains(&(*e).into()));
            assert!(others.into_iter().all(|e| scores[e] <= least));
        }
    }
    assert_eq!(fails(&["metrics", run, "--esft", "1.5"]).0, 2);
}
