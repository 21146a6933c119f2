//! What `verify` found.

use std::fmt::Write as _;

use moetrace_run::Verification;
use serde_json::json;

use super::{bytes, counted, thousands, word};

/// For machines.
pub(crate) fn verified(run: &str, found: &Verification) -> serde_json::Value {
    json!({ "run": run, "sound": found.faults.is_empty(), "verification": found })
}

/// What was read, and each kind of fault with its count and its first place.
pub(crate) fn verification(run: &str, found: &Verification) -> String {
    let mut out = String::new();
    // Writing to a String does not fail.
    let _ = writeln!(
        out,
        "{}: {} of {} committed; read {} in {}, {}, {}",
        word(run),
        found.committed,
        counted(found.shards as u64, "shard"),
        bytes(found.bytes),
        counted(found.files as u64, "file"),
        counted(found.samples, "text"),
        counted(found.rows, "row"),
    );
    if found.faults.is_empty() {
        let _ = writeln!(out, "no fault found");
    }
    for fault in &found.faults {
        let _ = writeln!(
            out,
            "\n{} x {}\n  first: {}\n  {}",
            thousands(fault.count),
            fault.kind,
            word(&fault.first.to_string()),
            word(&fault.what)
        );
    }
    out
}
