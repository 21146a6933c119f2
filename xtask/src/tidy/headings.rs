//! What every crate opens with, the lints it takes part in, and the changelog's heading.

use anyhow::{Context as _, Result};

use super::{House, read_toml};

/// The first words of the four lines that open a crate.
const OPENING: [&str; 4] = ["//! In: ", "//! Out: ", "//! Holds: ", "//! Not here: "];

/// Checks each member's opening lines and lints, and the changelog.
pub(super) fn check(house: &House) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for member in &house.members {
        let folder = house.root.join(member);
        let name = member.display();
        let manifest = read_toml(&folder.join("Cargo.toml"))?;
        let opted_in = manifest.get("lints").and_then(|l| l.get("workspace")?.as_bool());
        if opted_in != Some(true) {
            wrong.push(format!("{name}/Cargo.toml lacks [lints] workspace = true"));
        }
        let entry = ["lib.rs", "main.rs"].iter().map(|f| folder.join("src").join(f)).find(|p| p.exists());
        let text = std::fs::read_to_string(entry.with_context(|| format!("{name} has no entry file"))?)?;
        let doc: Vec<&str> = text.lines().take_while(|l| l.starts_with("//!")).collect();
        let mut lines = doc.iter();
        for opening in OPENING {
            if !lines.any(|line| line.starts_with(opening)) {
                wrong.push(format!("{name} does not open with its line {opening:?}"));
                break;
            }
        }
    }
    let version = house
        .manifest
        .get("workspace")
        .and_then(|w| w.get("package")?.get("version")?.as_str())
        .context("no workspace version")?;
    let changelog =
        std::fs::read_to_string(house.root.join("CHANGELOG.md")).context("reading CHANGELOG.md")?;
    if !changelog.contains(&format!("\n## {version}")) && !changelog.contains("\n## Unreleased") {
        wrong.push(format!("CHANGELOG.md has neither '## {version}' nor '## Unreleased'"));
    }
    Ok(wrong)
}
