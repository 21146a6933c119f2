//! Text as users see it: tables and blocks. Every number comes from a report; none is made here.

mod checkpoint;
mod compare;
mod doctor;
mod downloads;
mod exchange;
mod families;
mod models;
mod placement;
mod plan;
mod report;
mod run;
mod usage;
mod verify;

use comfy_table::{CellAlignment, Table, presets};

pub(crate) use checkpoint::{checkpoint, storage};
pub(crate) use compare::{compared, comparison, not_compared};
pub(crate) use doctor::{examination, examined};
pub(crate) use downloads::downloads;
pub(crate) use exchange::exported;
pub(crate) use families::{families, groups};
pub(crate) use models::{Counted, model_facts, models, models_json, parameters};
pub(crate) use placement::gpu_json;
pub(crate) use plan::{Estimate, model_json, model_plan, plan, settings};
pub(crate) use report::{glance, layers, summary};
pub(crate) use run::{
    collected, collected_lines, heading, left_out, program, provenance, quoted, rows, status,
};

pub(crate) use usage::{halved, used, used_json};
pub(crate) use verify::{verification, verified};

/// A name from outside on one line: whoever named a folder or wrote a manifest moves no cursor and adds no line.
fn word(text: &str) -> String {
    let escaped = |c: char| {
        if c.is_control() || moetrace_report::is_unseen(c) {
            c.escape_default().to_string()
        } else {
            c.to_string()
        }
    };
    text.chars().map(escaped).collect()
}

/// An engine's name in a sentence.
fn processor(engine: &str) -> &str {
    if engine == "cuda" { "GPU" } else { engine }
}

/// A table without ruled lines; columns from the second on are numbers, to the right.
fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().copied());
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// `12,345,678`.
pub(crate) fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 shard`, `6 shards`.
fn counted(n: u64, thing: &str) -> String {
    format!("{} {thing}{}", thousands(n), if n == 1 { "" } else { "s" })
}

/// Bytes in decimal units, as disks are sold: GB is 10^9.
pub(crate) fn bytes(n: u64) -> String {
    match n {
        0..1_000 => format!("{n} B"),
        1_000..1_000_000 => format!("{:.1} kB", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", n as f64 / 1e6),
        _ => format!("{:.2} GB", n as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands_and_bytes_are_decimal() {
        let grouped: Vec<String> = [0, 999, 1_000, 1_234_567].into_iter().map(thousands).collect();
        assert_eq!(grouped, ["0", "999", "1,000", "1,234,567"]);
        let sizes: Vec<String> = [999, 1_500, 11_750_000, 2_000_000_000].into_iter().map(bytes).collect();
        assert_eq!(sizes, ["999 B", "1.5 kB", "11.8 MB", "2.00 GB"]);
    }
}
