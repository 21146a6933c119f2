//! `quantize`, `synth` and `--precision nf4`: what they write, refuse and say.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::program::{assert_same_tables, ends, fails, moetrace, succeeds};

/// Half of the texts, so that a run takes a moment only.
const FEW: [&str; 4] = ["--quiet", "--traces", "48", "--threads=2"];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name)
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn collect(model: &Path, out: &Path, more: &[&str]) {
    let (model, out) = (text(model), text(out));
    succeeds(&[&["collect", "--model", &model, "--out", &out], &FEW[..], more].concat());
}

/// A copy of the embedded model: what stands beside the weights is copied too.
fn dense(dir: &Path) -> PathBuf {
    let to = dir.join("tiny");
    fs::create_dir(&to).unwrap();
    for entry in fs::read_dir(fixture("model")).unwrap() {
        let from = entry.unwrap().path();
        fs::copy(&from, to.join(from.file_name().unwrap())).unwrap();
    }
    to
}

#[test]
fn quantised_before_on_load_and_in_the_cache_route_alike() {
    let dir = tempfile::tempdir().unwrap();
    let source = dense(dir.path());
    let four = dir.path().join("four");
    let said: Value = serde_json::from_str(&succeeds(&[
        "quantize",
        &text(&source),
        "--out",
        &text(&four),
        "--quiet",
        "--json",
    ]))
    .unwrap();
    // 604 of the embedded model's 618 tensors are projections.
    assert_eq!((&said["tensors"], &said["quantised"]), (&618.into(), &604.into()));
    let [before, on_load, first, second, third] =
        ["before", "on-load", "first", "second", "third"].map(|n| dir.path().join(n));
    collect(&four, &before, &[]);
    collect(&source, &on_load, &["--precision", "nf4"]);
    let cache = dir.path().join("cache");
    for out in [&first, &second] {
        let mut command = moetrace();
        command.env("MOETRACE_CACHE", &cache).args(["collect", "--model", &text(&source)]).args(FEW);
        command.args(["--precision", "nf4", "--cache-quantized", "--out", &text(out)]);
        assert!(command.status().unwrap().success());
    }
    // One folder and its list; when a byte of it changes, it is made again.
    let kept: Vec<PathBuf> =
        fs::read_dir(cache.join("quantised")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(kept.len(), 2, "{kept:?}");
    let folder = kept.iter().find(|path| path.is_dir()).unwrap();
    let weights = folder.join("model.safetensors");
    let sound = fs::read(&weights).unwrap();
    let mut damaged = sound.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0x55;
    fs::write(&weights, damaged).unwrap();
    let mut command = moetrace();
    command.env("MOETRACE_CACHE", &cache).args(["collect", "--model", &text(&source)]).args(FEW);
    command.args(["--precision", "nf4", "--cache-quantized", "--out", &text(&third)]);
    assert!(command.status().unwrap().success());
    assert!(fs::read(&weights).unwrap() == sound);
    assert_same_tables(&on_load, &third);
    // The same model, so the same bytes; the 4-bit folder is another model with the same routing.
    assert_same_tables(&on_load, &first);
    assert_same_tables(&on_load, &second);
    let compared: Value =
        serde_json::from_str(&succeeds(&["compare", &text(&before), &text(&on_load), "--json"])).unwrap();
    let exact = &compared["comparison"]["fidelity"]["overall"]["all"]["exact_set_rate"]["mean"];
    assert_eq!(exact.as_f64(), Some(1.0), "{compared}");
}

#[test]
fn a_run_in_4_bits_says_how_it_was_quantised_and_is_not_continued_with_other_settings() {
    let dir = tempfile::tempdir().unwrap();
    let (source, out) = (dense(dir.path()), dir.path().join("run"));
    collect(&source, &out, &["--precision", "nf4"]);
    let manifest: Value = serde_json::from_slice(&fs::read(out.join("manifest.json")).unwrap()).unwrap();
    let model = &manifest["model"];
    assert_eq!((&model["precision"], &model["compute_dtype"]), (&"nf4".into(), &"bf16".into()));
    assert_eq!(model["quantisation"], "blocks of 64, 8-bit scales, routers not quantised");
    for (more, named) in [
        (&["--no-double-quant"][..], "quantisation"),
        (&["--block-size", "128"], "quantisation"),
        (&["--compute-dtype", "f32"], "compute_dtype"),
    ] {
        let arguments = ["collect", "--model", &text(&source), "--out", &text(&out), "--precision", "nf4"];
        let (code, stderr) = fails(&[&arguments[..], &FEW, more].concat());
        assert_eq!(code, 78, "{stderr}");
        assert!(stderr.contains("E-MANIFEST") && stderr.contains(named), "{stderr}");
    }
}

#[test]
fn what_cannot_be_is_refused_with_the_next_thing_to_type() {
    let dir = tempfile::tempdir().unwrap();
    let (source, four) = (dense(dir.path()), dir.path().join("four"));
    succeeds(&["quantize", &text(&source), "--out", &text(&four), "--quiet"]);
    let (source, four, other) = (text(&source), text(&four), text(&dir.path().join("other")));
    for (arguments, exit, name) in [
        (vec!["quantize", &source, "--out", &four], 73, "E-EXISTS"),
        (vec!["quantize", &source, "--out", &source], 73, "E-EXISTS"),
        (vec!["quantize", &four, "--out", &other], 2, "E-QUANTISED"),
        (vec!["quantize", &source, "--out", &other, "--block-size", "100"], 2, "E-USAGE"),
        (vec!["quantize", &source, "--out", &other, "--shard-size", "5 apples"], 2, "E-USAGE"),
        (vec!["quantize", "/nowhere", "--out", &other], 66, "E-MODEL"),
        (vec!["synth", "--like", "/nowhere", "--out", &other], 66, "E-CONFIG"),
        (vec!["collect", "--model", &four, "--precision", "bf16"], 2, "E-PRECISION"),
        (
            vec!["collect", "--model", &source, "--precision", "bf16", "--compute-dtype", "f32"],
            2,
            "E-PRECISION",
        ),
    ] {
        let (code, stderr) = fails(&arguments);
        assert_eq!(code, exit, "{arguments:?}: {stderr}");
        assert!(stderr.contains(name) && stderr.contains("help"), "{arguments:?}: {stderr}");
    }
    assert!(!dir.path().join("other").exists());
}

/// Without room for the second file: what is complete stays beside, nothing gets the final name, and with room the
/// same command goes on.
#[test]
fn a_full_disk_leaves_no_half_checkpoint_and_the_same_command_continues() {
    let dir = tempfile::tempdir().unwrap();
    let source = dense(dir.path());
    let (out, whole) = (dir.path().join("out"), dir.path().join("whole"));
    let quantize = |out: &Path| {
        ["quantize", &text(&source), "--quiet", "--shard-size", "1MB", "--out", &text(out)].map(str::to_owned)
    };
    let whole_arguments = quantize(&whole);
    succeeds(&whole_arguments.each_ref().map(String::as_str));
    let program = moetrace();
    let mut command = std::process::Command::new("sh");
    // The first file holds the embeddings and is the largest; the limit is in units of 512 bytes.
    let sizes: Vec<u64> = (1..)
        .map(|n| format!("model-{n:05}-of-"))
        .map_while(|name| {
            let found = fs::read_dir(&whole).unwrap().map(|entry| entry.unwrap());
            found.filter(|f| f.file_name().to_string_lossy().starts_with(&name)).last()
        })
        .map(|file| file.metadata().unwrap().len())
        .collect();
    let first_larger = sizes.iter().position(|size| *size > sizes[0]).unwrap();
    let script = format!("trap '' XFSZ && ulimit -f {} && exec \"$0\" \"$@\"", sizes[0].div_ceil(512));
    command.args(["-c", &script]).arg(program.get_program()).args(quantize(&out));
    let (code, stderr) = ends(&mut command);
    assert_eq!(code, 74, "{stderr}");
    assert!(!out.exists());
    let partial = dir.path().join("out.partial");
    let left: Vec<String> = fs::read_dir(&partial)
        .unwrap()
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    assert!(left.iter().all(|name| !name.contains(".part")), "{left:?}");
    assert_eq!(left.iter().filter(|name| name.contains("-of-")).count(), first_larger, "{left:?}");
    let arguments = quantize(&out);
    succeeds(&arguments.each_ref().map(String::as_str));
    assert!(!partial.exists());
    for entry in fs::read_dir(&whole).unwrap() {
        let path = entry.unwrap().path();
        let same = fs::read(&path).unwrap() == fs::read(out.join(path.file_name().unwrap())).unwrap();
        assert!(same, "{}", path.display());
    }
}

#[test]
fn synth_writes_any_configurations_shapes_in_any_storage() {
    let dir = tempfile::tempdir().unwrap();
    let ids = dir.path().join("ids.jsonl");
    fs::write(&ids, "{\"input_ids\": [3, 5, 9, 40, 7, 7, 100]}\n").unwrap();
    for precision in ["nf4", "bf16", "f16", "f32"] {
        let (model, out) = (dir.path().join(precision), dir.path().join(format!("run-{precision}")));
        let like = text(&fixture("parity/qwen2_moe_small"));
        succeeds(&["synth", "--like", &like, "--precision", precision, "--out", &text(&model), "--quiet"]);
        let shown = succeeds(&["inspect", &text(&model)]);
        let kind = precision.to_uppercase();
        assert!(shown.lines().filter(|line| line.contains(&kind)).count() > 100, "{shown}");
        let dataset = format!("ids={}", ids.display());
        succeeds(&[
            "collect",
            "--quiet",
            "--model",
            &text(&model),
            "--dataset",
            &dataset,
            "--out",
            &text(&out),
        ]);
        let manifest: Value = serde_json::from_slice(&fs::read(out.join("manifest.json")).unwrap()).unwrap();
        assert_eq!(manifest["model"]["precision"], precision);
    }
}
