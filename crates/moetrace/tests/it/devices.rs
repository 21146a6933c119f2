//! What computes, on a machine without a GPU or with the GPUs hidden: what is chosen, said and refused.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::program::{ends, fails, moetrace, succeeds};

/// The program with nothing said about the device, on a machine whose GPUs are hidden.
fn without_gpus(args: &[&str]) -> Command {
    let mut command = moetrace();
    command.env_remove("MOETRACE_DEVICE").env("CUDA_VISIBLE_DEVICES", "").args(args);
    command
}

/// A setting of a plan: its value and its source.
fn setting(plan: &Value, name: &str) -> (String, String) {
    let all = plan["settings"].as_array().unwrap();
    let found = all.iter().find(|s| s["name"] == name).unwrap();
    (found["value"].as_str().unwrap().to_owned(), found["source"].as_str().unwrap().to_owned())
}

fn plan(command: &mut Command) -> Value {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn automatic_takes_the_processor_where_there_is_no_gpu() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run").display().to_string();
    let plan = plan(&mut without_gpus(&["plan", "--json", "--traces", "6", "--out", &out]));
    assert_eq!((&plan["model"]["engine"], &plan["gpu"]), (&"cpu".into(), &Value::Null));
    assert_eq!(setting(&plan, "device"), ("cpu".into(), "default".into()));
    assert_eq!(setting(&plan, "shard-tokens").0, "16384");
    assert_eq!(setting(&plan, "tokens-per-pass"), ("4096".into(), "default".into()));
    assert_eq!(setting(&plan, "max-length"), ("512".into(), "default".into()));
}

#[test]
fn a_gpu_that_was_asked_for_and_is_not_there_is_an_error_that_names_what_is_missing() {
    for device in ["cuda", "cuda:7"] {
        let (code, stderr) = ends(&mut without_gpus(&["plan", "--traces", "6", "--device", device]));
        assert_eq!(code, 78, "{stderr}");
        let begins = format!("error[E-DEVICE]: --device {device} cannot be used: ");
        assert!(stderr.starts_with(&begins) && stderr.contains("NVIDIA driver"), "{stderr}");
        assert!(stderr.contains("\n  help: ") && stderr.contains("--device cpu"), "{stderr}");
    }
}

/// A folder with a library called as the driver's that holds none of its functions.
fn broken_driver(dir: &Path) -> PathBuf {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let library =
        maps.lines().find_map(|line| line.split_whitespace().nth(5).filter(|p| p.contains("libc.so")));
    for name in ["libcuda.so", "libcuda.so.1"] {
        std::os::unix::fs::symlink(library.unwrap(), dir.join(name)).unwrap();
    }
    dir.to_owned()
}

#[test]
fn a_broken_driver_is_said_and_the_processor_computes_unless_a_gpu_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let driver = broken_driver(dir.path());
    let out = dir.path().join("run").display().to_string();
    let with = |more: &[&str]| {
        let args = [&["plan", "--traces", "6", "--out", &out], more].concat();
        ends(without_gpus(&args).env("LD_LIBRARY_PATH", &driver))
    };
    let (code, stderr) = with(&[]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("no GPU is used: CUDA's libraries do not work together"), "{stderr}");
    assert_eq!(with(&["--quiet"]), (0, String::new()));
    assert_eq!(with(&["--device", "cpu"]), (0, String::new()));
    let (code, stderr) = with(&["--device", "cuda"]);
    assert_eq!(code, 78, "{stderr}");
    assert!(stderr.contains("E-DEVICE") && stderr.contains("nvidia-smi"), "{stderr}");
}

#[test]
fn a_run_that_the_processor_began_is_continued_by_it() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run").display().to_string();
    succeeds(&["collect", "--quiet", "--traces", "6", "--out", &out]);
    let args = ["plan", "--json", "--traces", "6", "--out", &out];
    let begun = plan(&mut without_gpus(&args));
    assert_eq!(setting(&begun, "device"), ("cpu".into(), "manifest of the run".into()));
    let fresh = plan(&mut without_gpus(&[&args[..], &["--fresh"]].concat()));
    assert_eq!(setting(&fresh, "device"), ("cpu".into(), "default".into()));
}

#[test]
fn a_preset_that_is_asked_for_sets_the_length_of_texts_and_a_flag_goes_before_it() {
    let of = |more: &[&str]| plan(moetrace().args(["plan", "--json", "--traces", "6"]).args(more));
    let small = of(&["--preset", "low-memory"]);
    assert_eq!(setting(&small, "max-length"), ("256".into(), "preset low-memory".into()));
    assert_eq!(setting(&small, "preset"), ("low-memory".into(), "flag".into()));
    assert_eq!(setting(&small, "max-memory").0, "none: no GPU is used");
    let batch = of(&["--preset", "low-memory", "--batch-size", "4"]);
    assert_eq!(setting(&batch, "tokens-per-pass").0, "1024");
    let flag = of(&["--preset", "low-memory", "--max-length", "300"]);
    assert_eq!(setting(&flag, "max-length"), ("300".into(), "flag".into()));
}

#[test]
fn a_mistyped_device_limit_or_preset_is_refused_with_what_is_expected() {
    for (flag, value, named) in [
        ("--device", "gpu", "cuda:N"),
        ("--device", "cuda:x", "cuda:N"),
        ("--max-memory", "20", "unit"),
        ("--max-memory", "0=20GB,1=20GB", "one"),
        ("--max-memory", "cpu=16", "unit"),
        ("--preset", "rtx2080", "low-memory"),
    ] {
        let (code, stderr) = fails(&["plan", flag, value]);
        assert_eq!(code, 2, "{stderr}");
        assert!(stderr.contains("E-USAGE") && stderr.contains(named), "{stderr}");
    }
}
