//! What `doctor` found.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::word;
use crate::doctor::{Check, State, is_well};

/// For machines.
pub(crate) fn examined(checks: &[Check]) -> Value {
    json!({ "ok": is_well(checks), "checks": checks })
}

/// A line for each check, and below those that are not as they should be what should be and what to do.
pub(crate) fn examination(checks: &[Check]) -> String {
    let width = checks.iter().map(|check| check.id.len()).max().unwrap_or(0);
    let mut out = String::new();
    for check in checks {
        let state = match check.state {
            State::Ok => "ok",
            State::Note => "note",
            State::Fails => "FAILS",
        };
        // Writing to a String does not fail.
        let _ = writeln!(out, "{state:<5}  {:<width$}  {}", check.id, word(&check.found));
        let mut below = |what: &str, text: &Option<String>| {
            if let Some(text) = text {
                let _ = writeln!(out, "{:<5}  {:<width$}    {what} {}", "", "", word(text));
            }
        };
        if check.state != State::Ok {
            below("needs:", &check.needs);
            below("fix:  ", &check.fix);
        }
    }
    if is_well(checks) {
        out.push_str("\nnothing that is needed is missing\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fix_stands_below_every_line_that_is_not_ok_and_nothing_below_the_others() {
        let check = |id, state| Check {
            id,
            state,
            found: format!("found {id}\u{1b}[2J"),
            needs: Some(format!("more {id}")),
            fix: Some(format!("mend {id}")),
        };
        let checks = [check("gpu", State::Ok), check("login", State::Note), check("disk", State::Fails)];
        let text = examination(&checks);
        assert!(!text.contains("mend gpu") && !text.contains("more gpu"), "{text}");
        assert!(
            text.contains("mend login") && text.contains("fix:   mend disk") && text.contains("FAILS  disk")
        );
        assert!(!text.contains('\u{1b}') && !text.contains("nothing that is needed"), "{text}");
        assert_eq!(examined(&checks)["ok"], false);
        assert_eq!(examined(&checks[..2])["ok"], true);
        assert_eq!(examined(&checks)["checks"][2]["state"], "fails");
    }
}
