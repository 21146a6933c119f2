//! Plans for GPUs that are not here: what is printed, and what each flag about memory changes.

use serde_json::Value;

use crate::program::{fails, moetrace, succeeds};

fn plan(more: &[&str]) -> Value {
    let args = [&["plan", "--json", "--traces", "12", "--gpu", "rtx3090"], more].concat();
    serde_json::from_str(&succeeds(&args)).unwrap()
}

fn refused(more: &[&str]) -> (i32, String) {
    fails(&[&["plan", "--traces", "12", "--gpu", "rtx3090"], more].concat())
}

fn layers(plan: &Value) -> Vec<&str> {
    plan["gpu"]["layers"].as_array().unwrap().iter().map(|layer| layer.as_str().unwrap()).collect()
}

#[test]
fn a_plan_is_made_for_every_kind_of_gpu_without_one() {
    for gpu in ["rtx3090", "rtx4090", "a6000", "a100-40", "a100-80", "h100", "h200", "low-memory"] {
        let output = moetrace()
            .args(["plan", "--json", "--traces", "6", "--gpu", gpu])
            .env_remove("MOETRACE_DEVICE")
            .env("CUDA_VISIBLE_DEVICES", "")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
        let of = &plan["gpu"];
        assert_eq!((&of["name"], &of["preset"], &of["present"]), (&gpu.into(), &gpu.into(), &false.into()));
        assert_eq!(plan["model"]["engine"], "cuda");
        assert_eq!(layers(&plan), ["gpu"; 4]);
        assert!(of["device_bytes"].as_u64() <= of["limit_bytes"].as_u64(), "{of}");
    }
    let (code, stderr) = fails(&["plan", "--gpu", "rtx2080"]);
    assert!(code == 2 && stderr.contains("low-memory"), "{stderr}");
    let (code, stderr) = fails(&["collect", "--gpu", "rtx3090"]);
    assert!(code == 2 && stderr.contains("--gpu"), "{stderr}");
}

#[test]
fn the_keys_for_machines_are_these() {
    let plan = plan(&[]);
    let keys = |value: &Value| {
        let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        keys.join(" ")
    };
    assert_eq!(
        keys(&plan["gpu"]),
        "buffer_bytes context_bytes device_bytes disk_bytes embedding expert_groups free_bytes host_bytes \
         host_limit_bytes layers limit_bytes name ordinal parks_hidden present preset slot_bytes speed tokens_per_chunk \
         tokens_per_pass total_bytes weight_bytes"
    );
    assert_eq!(
        keys(&plan["gpu"]["speed"]),
        "bus_bytes_per_second compute_seconds copied_bytes_per_pass hidden_from_tokens largest_copy_bytes \
         largest_copy_seconds measured operations_per_second operations_per_token pass_seconds restore_seconds seconds \
         tokens_per_second waiting_share"
    );
    let of = |key: &str| plan["gpu"][key].as_u64().unwrap();
    let sum = of("weight_bytes") + of("slot_bytes") + of("buffer_bytes") + of("context_bytes");
    assert_eq!(of("device_bytes"), sum);
}

#[test]
fn people_read_where_layers_are_and_how_the_speed_comes_about() {
    let text = succeeds(&[
        "plan",
        "--traces",
        "12",
        "--gpu",
        "rtx3090",
        "--device-map",
        r#"{"model.layers.1": "cpu", "model.layers.3.mlp": "disk"}"#,
        "--tokens-per-pass",
        "4096",
    ]);
    for line in [
        "gpu       rtx3090, as if one were here with all of its 24.00 GB free",
        "at most 20.00 GB (preset rtx3090)",
        "layers    2 on the GPU (0, 2), 1 in host memory (1), 1 on disk (3); embedding on the GPU",
        "page-locked of at most ",
        "read from disk in every pass",
        "passes    4,096 tokens",
        "hiding    ",
        "a layer of ",
        "speed     about ",
        "no pass was measured on such a GPU",
        "GFLOP a token at ",
        "a pass to copy at 24 GB/s",
        "time      about ",
    ] {
        assert!(text.contains(line), "{line:?} is missing in\n{text}");
    }
    let resident = succeeds(&["plan", "--traces", "12", "--gpu", "h200"]);
    assert!(resident.contains("layers    all 4 on the GPU; embedding on the GPU"), "{resident}");
    assert!(resident.contains("as measured on such a GPU") && !resident.contains("hiding"), "{resident}");
    assert!(resident.contains("in one piece"), "{resident}");
}

#[test]
fn layers_go_where_the_flags_say() {
    assert_eq!(layers(&plan(&["--cpu-offload"])), ["host"; 4]);
    assert_eq!(layers(&plan(&["--device-map", "cpu"])), ["host"; 4]);
    assert_eq!(layers(&plan(&["--device-map", "cuda"])), ["gpu"; 4]);
    assert_eq!(layers(&plan(&["--device-map", "auto"])), ["gpu"; 4]);
    let inline = r#"{"model.layers.0": 0, "model.layers.2": "disk", "model.embed_tokens": "cpu"}"#;
    let of_map = plan(&["--device-map", inline]);
    assert_eq!(
        (layers(&of_map), &of_map["gpu"]["embedding"]),
        (vec!["gpu", "gpu", "disk", "gpu"], &"host".into())
    );
    // Named layers go before the switch for all others.
    assert_eq!(layers(&plan(&["--device-map", inline, "--cpu-offload"])), ["gpu", "host", "disk", "host"]);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("map.json");
    std::fs::write(&file, r#"{"": "cuda", "model.layers.3": "cpu"}"#).unwrap();
    let of_file = plan(&["--device-map", file.to_str().unwrap()]);
    assert_eq!(layers(&of_file), ["gpu", "gpu", "gpu", "host"]);
    let speed = &of_file["gpu"]["speed"];
    assert_eq!(speed["copied_bytes_per_pass"], speed["largest_copy_bytes"]);
    assert!(of_file["gpu"]["host_bytes"].as_u64().unwrap() > 0);
}

#[test]
fn maps_that_fit_no_layer_are_refused_by_name() {
    for (map, named) in [
        (r#"{"model.layers.9": "cpu"}"#, "layers 0 to 3"),
        (r#"{"transformer.h.0": "cpu"}"#, "transformer.h.0"),
        (r#"{"model.layers.0": "cuda:0", "model.layers.1": "cuda:1"}"#, "a run uses one GPU"),
        (r#"{"model.layers.0": "mps"}"#, "mps"),
        ("balanced", "cannot read balanced"),
        ("{", "JSON object"),
    ] {
        let (code, stderr) = refused(&["--device-map", map]);
        assert_eq!(code, 2, "{stderr}");
        assert!(stderr.contains("E-SETTING") && stderr.contains(named), "{map}: {stderr}");
    }
    let (code, stderr) = refused(&["--device-map", r#"{"model.layers.0": "cuda:1"}"#]);
    assert!(code == 2 && stderr.contains("--device-map is for GPU 1"), "{stderr}");
    let (code, stderr) = refused(&["--device-map", "cuda", "--cpu-offload"]);
    assert!(code == 2 && stderr.contains("both were given"), "{stderr}");
}

#[test]
fn each_limit_is_kept_and_said() {
    let both = plan(&["--max-memory", "0=2GB,cpu=500MB"]);
    let of = |plan: &Value, key: &str| plan["gpu"][key].as_u64().unwrap();
    assert_eq!((of(&both, "limit_bytes"), of(&both, "host_limit_bytes")), (2_000_000_000, 500_000_000));
    assert!(of(&both, "device_bytes") <= 2_000_000_000 && of(&both, "host_bytes") <= 500_000_000);
    let share = plan(&["--max-memory", "cpu=500MB,gpu=10%"]);
    assert_eq!(of(&share, "limit_bytes"), 2_400_000_000);
    let settings = both["settings"].as_array().unwrap();
    let limit = settings.iter().find(|s| s["name"] == "max-memory").unwrap();
    assert_eq!(limit["value"], "gpu=2.00 GB, cpu=500.0 MB");
    assert!(settings.iter().all(|s| s["name"] != "gpu"));
    let (code, stderr) = refused(&["--max-memory", "1=2GB"]);
    assert!(code == 2 && stderr.contains("is for GPU 1, the run is on GPU 0"), "{stderr}");
}

/// What a hint says would do, as one would type it.
fn advised(stderr: &str) -> String {
    let (_, hint) = stderr.split_once("--max-memory ").unwrap();
    hint.split(' ').next().unwrap().to_owned()
}

#[test]
fn a_budget_that_cannot_work_is_refused_with_the_least_that_does() {
    let (code, stderr) = refused(&["--max-memory", "500MB"]);
    assert_eq!(code, 78, "{stderr}");
    assert!(
        stderr.contains("E-MEMORY") && stderr.contains("at the least") && stderr.contains("500.0 MB"),
        "{stderr}"
    );
    let (_, hint) = stderr.split_once("help: ").unwrap();
    let least = advised(hint);
    assert!(least.starts_with("gpu=") && least.ends_with("MB"), "{stderr}");
    let planned = plan(&["--max-memory", &least]);
    assert!(planned["gpu"]["device_bytes"].as_u64() <= planned["gpu"]["limit_bytes"].as_u64());

    // Weights quantised on load are in no file that could be read in every pass.
    let quantised = ["--precision", "nf4", "--cpu-offload", "--max-memory"];
    let (code, stderr) = refused(&[&quantised[..], &["cpu=1MB"]].concat());
    assert_eq!(code, 78, "{stderr}");
    assert!(stderr.contains("moetrace quantize") && stderr.contains("--cache-quantized"), "{stderr}");
    let (_, hint) = stderr.split_once("help: ").unwrap();
    assert_eq!(layers(&plan(&[&quantised[..], &[&advised(hint)]].concat())), ["host"; 4]);
}
