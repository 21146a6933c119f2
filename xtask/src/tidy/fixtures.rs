//! Every fixture is listed with its hash and its origin, and nothing else lies beside them.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};

use super::{House, read_toml};
use crate::sha256;

/// Compares fixtures/MANIFEST.toml with the files below fixtures/, generators aside.
pub(super) fn check(house: &House) -> Result<Vec<String>> {
    let manifest = read_toml(&house.root.join("fixtures/MANIFEST.toml"))?;
    let listed =
        manifest.get("file").and_then(|f| f.as_array()).context("no [[file]] in fixtures/MANIFEST.toml")?;
    let mut wrong = Vec::new();
    let mut names = BTreeSet::new();
    for entry in listed {
        let field = |key: &str| entry.get(key).and_then(|v| v.as_str()).unwrap_or_default();
        let name = field("path");
        names.insert(name.to_owned());
        if field("origin").is_empty() {
            wrong.push(format!("fixtures/{name} has no origin"));
        }
        match std::fs::read(house.root.join("fixtures").join(name)) {
            Ok(bytes) => {
                let found = sha256(&bytes);
                if found != field("sha256") {
                    wrong.push(format!("fixtures/{name} has sha256 {found}, listed as {}", field("sha256")));
                }
            }
            Err(error) => wrong.push(format!("fixtures/{name}: {error}")),
        }
    }
    for path in house.files("fixtures", "")? {
        let name = house.relative(&path).trim_start_matches("fixtures/").to_owned();
        if name != "MANIFEST.toml" && !name.starts_with("generate/") && !names.contains(&name) {
            wrong.push(format!("fixtures/{name} is not listed in MANIFEST.toml"));
        }
    }
    Ok(wrong)
}
