//! The code map of ARCHITECTURE.md names what is there, and only that.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};

use super::House;

/// Compares the paths in the section "Code map" with the modules at the top of every crate.
pub(super) fn check(house: &House) -> Result<Vec<String>> {
    let text =
        std::fs::read_to_string(house.root.join("ARCHITECTURE.md")).context("reading ARCHITECTURE.md")?;
    let section = text.split("\n## ").find(|s| s.starts_with("Code map")).context("no section 'Code map'")?;
    // Every `path` in backticks that begins with a member's folder.
    let named: BTreeSet<&str> = section
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|p| house.members.iter().any(|m| p.starts_with(&m.display().to_string())))
        .collect();
    let mut wrong: Vec<String> = named
        .iter()
        .filter(|path| !house.root.join(path).exists())
        .map(|path| format!("the code map names {path}, which does not exist"))
        .collect();
    for member in &house.members {
        let source = house.root.join(member).join("src");
        for entry in std::fs::read_dir(&source)? {
            let path = entry?.path();
            let relative = house.relative(&path);
            let stem = relative.strip_suffix(".rs").unwrap_or(&relative);
            if ["/lib", "/main"].iter().any(|root| stem.ends_with(root)) {
                continue;
            }
            if !named.iter().any(|n| {
                n.trim_end_matches('/').strip_suffix(".rs").unwrap_or(n.trim_end_matches('/')) == stem
            }) {
                wrong.push(format!("the code map does not name {relative}"));
            }
        }
    }
    Ok(wrong)
}
