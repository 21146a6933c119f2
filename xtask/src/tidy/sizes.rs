//! Files that a person can read in one sitting.

use anyhow::Result;

use super::House;

/// Lines at which a source file has become two.
const LIMIT: usize = 500;

/// Every Rust file of the product; tests may be longer.
pub(super) fn check(house: &House) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let mut longest = (0, String::new());
    for member in &house.members {
        for path in house.files(&member.display().to_string(), "rs")? {
            let name = house.relative(&path);
            if name.contains("/tests/") {
                continue;
            }
            let lines = std::fs::read_to_string(&path)?.lines().count();
            if lines > LIMIT {
                wrong.push(format!("{name} has {lines} lines, more than {LIMIT}"));
            }
            longest = longest.max((lines, name));
        }
    }
    println!("tidy: longest source file: {} ({} lines)", longest.1, longest.0);
    Ok(wrong)
}
