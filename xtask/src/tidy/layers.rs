//! Which of our crates may name which, and what a user of the model crate must never compile.

use anyhow::{Context as _, Result};

use super::{House, read_toml};
use crate::cargo;

/// Compares every member's dependencies with `[workspace.metadata.layers]`.
pub(super) fn check(house: &House) -> Result<Vec<String>> {
    let layers = house
        .manifest
        .get("workspace")
        .and_then(|w| w.get("metadata")?.get("layers")?.as_table())
        .context("Cargo.toml has no [workspace.metadata.layers]")?;
    let mut wrong = Vec::new();
    for member in &house.members {
        let manifest = read_toml(&house.root.join(member).join("Cargo.toml"))?;
        let name = manifest["package"]["name"].as_str().unwrap_or_default();
        let Some(allowed) = layers.get(name).and_then(|l| l.as_array()) else {
            wrong.push(format!("{name} has no entry in [workspace.metadata.layers]"));
            continue;
        };
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(table) = manifest.get(kind).and_then(|d| d.as_table()) else { continue };
            for edge in table.keys().filter(|k| layers.contains_key(*k)) {
                if !allowed.iter().any(|a| a.as_str() == Some(edge)) {
                    wrong.push(format!("{name} names {edge}, which its layer does not allow"));
                }
            }
        }
    }
    Ok(wrong)
}

/// Names that must not stand in the dependency tree of moetrace-model: its users want the model alone.
const NOT_IN_MODEL: [&str; 9] =
    ["arrow", "parquet", "clap", "ureq", "reqwest", "hyper", "hf-hub", "indicatif", "moetrace-trace"];

/// Proves that who reuses the model crate compiles no Parquet, no command line and no HTTP.
pub(super) fn check_reuse(_: &House) -> Result<Vec<String>> {
    let output = cargo()
        .args(["tree", "--package", "moetrace-model", "--edges", "normal", "--prefix", "none"])
        .args(["--format", "{p}", "--no-dedupe"])
        .output()?;
    anyhow::ensure!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8_lossy(&output.stdout);
    anyhow::ensure!(tree.contains("candle-core"), "cargo tree prints no dependencies:\n{tree}");
    let names = tree.lines().filter_map(|line| line.split_whitespace().next());
    let mut wrong: Vec<String> = names
        .filter(|name| {
            NOT_IN_MODEL
                .iter()
                .any(|bad| name == bad || name.strip_prefix(bad).is_some_and(|r| r.starts_with('-')))
        })
        .map(|name| format!("moetrace-model compiles {name}"))
        .collect();
    wrong.sort();
    wrong.dedup();
    Ok(wrong)
}
