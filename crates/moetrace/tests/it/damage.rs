//! Damage to a committed run is found, named and mended shard by shard.

use std::path::{Path, PathBuf};

use crate::program::{assert_same_tables, json, moetrace, succeeds};

struct Damaged {
    dir: tempfile::TempDir,
}

impl Damaged {
    /// Two equal runs of six shards, one of them about to be damaged.
    fn new() -> Self {
        let damaged = Self { dir: tempfile::tempdir().unwrap() };
        for name in ["whole", "run"] {
            damaged.collect(name, &[]);
        }
        damaged
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn collect(&self, name: &str, more: &[&str]) -> (i32, String) {
        self.command(&[&["collect", "--quiet", "--traces", "12", "--out", name], more].concat())
    }

    fn command(&self, args: &[&str]) -> (i32, String) {
        let output = moetrace().current_dir(self.dir.path()).args(args).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }

    /// Collect and metrics refuse with these words; a repair writes one shard and gives the same files.
    fn is_named_and_mended(&self, expected: &str) {
        for args in [&["collect", "--quiet", "--traces", "12", "--out", "run"][..], &["metrics", "run"]] {
            let (code, stderr) = self.command(args);
            assert_eq!(code, 65, "{stderr}");
            assert!(stderr.contains(expected) && stderr.contains("--repair"), "{expected:?}: {stderr}");
        }
        let out = self.path("run");
        let args = ["collect", "--json", "--quiet", "--traces", "12", "--repair", "--out"];
        let mended = succeeds(&[&args[..], &[out.to_str().unwrap()]].concat());
        let mended: serde_json::Value = serde_json::from_str(&mended).unwrap();
        assert_eq!((mended["written"].as_u64(), mended["complete"].as_bool()), (Some(1), Some(true)));
        assert_same_tables(&out, &self.path("whole"));
    }
}

fn flip_a_bit(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn each_kind_of_damage_is_named_with_its_file_and_repair_does_that_shard_again() {
    let damaged = Damaged::new();
    let shard = "code-00000-of-00001";
    let (data, samples) = (
        damaged.path(&format!("run/data/{shard}.parquet")),
        damaged.path(&format!("run/samples/{shard}.parquet")),
    );

    flip_a_bit(&data);
    damaged.is_named_and_mended("error[E-HASH]: run/data/code-00000-of-00001.parquet is damaged (blake3");
    flip_a_bit(&samples);
    damaged.is_named_and_mended("error[E-HASH]: run/samples/code-00000-of-00001.parquet is damaged (blake3");

    let whole = std::fs::read(&data).unwrap();
    std::fs::write(&data, &whole[..100]).unwrap();
    let status = succeeds(&["status", damaged.path("run").to_str().unwrap()]);
    assert!(status.contains("holds 100 bytes") && status.contains("5 of 6 shards committed"), "{status}");
    damaged.is_named_and_mended(&format!("holds 100 bytes, its commit record says {}", whole.len()));

    std::fs::remove_file(&data).unwrap();
    let status = succeeds(&["status", damaged.path("run").to_str().unwrap()]);
    assert!(status.contains("is missing") && status.contains("5 of 6 shards committed"), "{status}");
    damaged.is_named_and_mended("code-00000-of-00001.parquet is missing");

    std::fs::write(damaged.path(&format!("run/state/commits/{shard}.json")), "{").unwrap();
    damaged.is_named_and_mended("code-00000-of-00001.json is damaged");
}

#[test]
fn a_bit_that_only_a_hash_can_find_is_believed_with_trust_or_found_by_the_decoder_but_never_a_panic() {
    let damaged = Damaged::new();
    let data = damaged.path("run/data/verse-00000-of-00001.parquet");
    flip_a_bit(&data);
    let (code, stderr) = damaged.command(&["metrics", "--trust", "run"]);
    assert!(code == 0 || code == 65, "{code}: {stderr}");
    assert!(!stderr.contains("E-INTERNAL") && !stderr.contains("panicked"), "{stderr}");
}

#[test]
fn a_damaged_manifest_can_only_be_started_over() {
    let damaged = Damaged::new();
    std::fs::write(damaged.path("run/manifest.json"), "{").unwrap();
    for more in [&[][..], &["--repair"]] {
        let (code, stderr) = damaged.collect("run", more);
        assert_eq!(code, 65, "{stderr}");
        assert!(stderr.contains("manifest.json is damaged") && stderr.contains("--fresh"), "{stderr}");
        assert!(!stderr.contains("--repair"), "{stderr}");
    }
    assert_eq!(damaged.collect("run", &["--fresh"]).0, 0);
    assert_same_tables(&damaged.path("run"), &damaged.path("whole"));
    assert!(damaged.path("run.bak/data").is_dir());
}

#[test]
fn derived_files_that_were_removed_come_back_as_they_were() {
    let damaged = Damaged::new();
    let names = ["summary.json", "README.md", "tokens.parquet"];
    for name in names {
        std::fs::remove_file(damaged.path("run").join(name)).unwrap();
    }
    assert_eq!(damaged.collect("run", &[]).0, 0);
    for name in names {
        let read = |run: &str| std::fs::read(damaged.path(run).join(name)).unwrap();
        assert!(read("run") == read("whole"), "{name} differs");
    }
    assert_eq!(json(&damaged.path("run/summary.json"))["shards"], 6);
}
