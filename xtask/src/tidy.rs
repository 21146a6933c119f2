//! `cargo xtask tidy`: the house rules that no compiler checks.

mod fixtures;
mod headings;
mod layers;
mod map;
mod sizes;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::root;

/// Says what is wrong, one line each.
type Check = fn(&House) -> Result<Vec<String>>;

/// Runs every check and reports all that is wrong, not only the first.
pub(crate) fn tidy() -> Result<()> {
    let house = House::open(root())?;
    let checks: [(&str, Check); 6] = [
        ("layers", layers::check),
        ("reuse", layers::check_reuse),
        ("sizes", sizes::check),
        ("code map", map::check),
        ("fixtures", fixtures::check),
        ("headings and lints", headings::check),
    ];
    let mut wrong = 0;
    for (name, check) in checks {
        let found = check(&house).with_context(|| format!("checking {name}"))?;
        println!("tidy: {name}: {}", if found.is_empty() { "ok" } else { "not ok" });
        for line in &found {
            println!("  {line}");
        }
        wrong += found.len();
    }
    if wrong > 0 {
        bail!("{wrong} house rules are broken");
    }
    Ok(())
}

/// The repository as the checks see it.
struct House {
    root: PathBuf,
    manifest: toml::Table,
    /// Folder of every member, relative to the root.
    members: Vec<PathBuf>,
}

impl House {
    fn open(root: PathBuf) -> Result<Self> {
        let manifest = read_toml(&root.join("Cargo.toml"))?;
        let mut members: Vec<PathBuf> = vec!["xtask".into(), "benches".into()];
        for entry in std::fs::read_dir(root.join("crates"))? {
            let path = entry?.path();
            if path.join("Cargo.toml").exists() {
                members.push(path.strip_prefix(&root)?.to_owned());
            }
        }
        members.sort();
        Ok(Self { root, manifest, members })
    }

    /// Every file below a folder whose name ends in `.extension`, hidden and built ones aside.
    fn files(&self, folder: &str, extension: &str) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        let mut open = vec![self.root.join(folder)];
        while let Some(dir) = open.pop() {
            for entry in std::fs::read_dir(&dir).with_context(|| format!("reading {}", dir.display()))? {
                let path = entry?.path();
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                if name.starts_with('.') || name == "target" || name == "__pycache__" {
                    continue;
                }
                if path.is_dir() {
                    open.push(path);
                } else if extension.is_empty() || path.extension().is_some_and(|e| e == extension) {
                    found.push(path);
                }
            }
        }
        found.sort();
        Ok(found)
    }

    fn relative(&self, path: &Path) -> String {
        path.strip_prefix(&self.root).unwrap_or(path).display().to_string()
    }
}

fn read_toml(path: &Path) -> Result<toml::Table> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    text.parse().with_context(|| format!("parsing {}", path.display()))
}
