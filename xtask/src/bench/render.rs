//! The document of one GPU.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::results::{Peer, Results};

/// Facts with a name of their own in the first table.
const FACTS: [(&str, &str); 12] = [
    ("gpu", "GPU"),
    ("capability", "compute capability"),
    ("memory", "memory"),
    ("driver", "driver"),
    ("nvrtc", "NVRTC"),
    ("commit", "commit"),
    ("date", "date of the commit"),
    ("tier", "tier, and its limit"),
    ("plan", "memory by the plan, for passes of"),
    ("weights", "weights on the GPU"),
    ("buffers", "buffers, for passes of"),
    ("taken", "memory taken by the engine in all"),
];

/// Markdown with what was measured, and nothing that was not.
pub(super) fn document(results: &Results) -> String {
    let mut text = String::new();
    let gpu = results.facts.get("gpu").map_or("GPU", String::as_str);
    let _ = write!(text, "# {gpu}\n\n");
    text.push_str(
        "Written by `cargo xtask bench`. DeepSeek-MoE-16B's shapes, bf16, random data; times are medians. What moves memory\n\
         is compared with a copy of as many bytes, what multiplies with a large product of the library, both measured in\n\
         the same run. A small pass fits into the cache, as does its copy.\n\n",
    );
    let facts = FACTS
        .iter()
        .filter_map(|(key, name)| Some(vec![(*name).to_owned(), results.facts.get(*key)?.clone()]));
    table(&mut text, &["", ""], facts);
    if !results.ceilings.is_empty() {
        text.push_str("## Compared with\n\n");
        table(&mut text, &["", "ms", "rate"], results.ceilings.iter().cloned());
    }
    if !results.kernels.is_empty() {
        text.push_str("## Operations and one layer\n\n");
        table(&mut text, &["operation", "tokens", "ms", "rate", "share"], results.kernels.iter().cloned());
    }
    passes(&mut text, results);
    stages(&mut text, results);
    if !results.skipped.is_empty() {
        text.push_str("## Not measured\n\n");
        table(&mut text, &["what", "why"], results.skipped.iter().cloned());
    }
    format!("{}\n", text.trim_end())
}

fn passes(text: &mut String, results: &Results) {
    if results.passes.is_empty() && results.peers.is_empty() {
        return;
    }
    text.push_str("## Whole passes\n\n");
    text.push_str(
        "Texts x tokens. Weights in NF4, routing of every layer brought to the host; operations are those of the whole base\n\
         model, although a trace needs no experts of its last layer.\n\n",
    );
    let ours = results.passes.iter().cloned();
    table(text, &["pass", "tokens", "ms", "tokens/s", "model rate", "share"], ours);
    if results.peers.is_empty() {
        return;
    }
    text.push_str("Peers, in the same run. The ratio is our tokens/s by theirs.\n\n");
    let theirs = results.peers.iter().map(|peer| {
        let Peer { name, pass, tokens_per_second, rate, peak } = peer;
        let ratio = ratio(results, peer).map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
        let rate = format!("{rate} TFLOP/s");
        vec![name.clone(), pass.clone(), tokens_per_second.clone(), rate, format!("{peak} GiB"), ratio]
    });
    table(text, &["peer", "pass", "tokens/s", "model rate", "peak memory", "ratio"], theirs);
}

fn ratio(results: &Results, peer: &Peer) -> Option<f64> {
    let ours = results.passes.iter().find(|pass| pass[0] == peer.pass)?;
    Some(ours[3].parse::<f64>().ok()? / peer.tokens_per_second.parse::<f64>().ok()?)
}

/// A table for each size of a pass.
fn stages(text: &mut String, results: &Results) {
    let sizes: BTreeSet<u64> = results.stages.iter().filter_map(|stage| stage[0].parse().ok()).collect();
    for size in sizes {
        let _ = write!(text, "## Where a pass of {size} tokens goes\n\n");
        let of_size = results.stages.iter().filter(|stage| stage[0].parse() == Ok(size));
        table(text, &["stage", "ms", "share"], of_size.map(|stage| stage[1..].to_vec()));
    }
}

/// A table, or nothing if it has no rows. Bars within a cell would end it.
fn table(text: &mut String, heads: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut rows = rows.peekable();
    if rows.peek().is_none() {
        return;
    }
    text.push_str(&line(&heads.iter().map(|head| (*head).to_owned()).collect::<Vec<_>>()));
    let _ = writeln!(text, "|{}", "---|".repeat(heads.len()));
    for row in rows {
        text.push_str(&line(&row.iter().map(|cell| cell.replace('|', "/")).collect::<Vec<_>>()));
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_has_what_was_measured_and_the_peers_ratio() {
        let lines = "moetrace-bench\tgpu\tNVIDIA H200\nmoetrace-bench\tdriver\t580.95.05\n\
            moetrace-bench\tpass\t80x512\t40960\t400.0\t102400\t493 TFLOP/s\t63.0 %\n\
            moetrace-bench\tstage\t40960\tattention\t7.100\t1.8 %\n\
            torch.compile bf16 grouped 80x512: 51200 tok/s 247 TF/s peak 34.0 GiB\n";
        let document = document(&Results::parse(lines).unwrap());
        for expected in [
            "# NVIDIA H200\n",
            "| driver | 580.95.05 |",
            "| 80x512 | 40960 | 400.0 | 102400 | 493 TFLOP/s | 63.0 % |",
            "| torch.compile bf16 grouped | 80x512 | 51200 | 247 TFLOP/s | 34.0 GiB | 2.00 |",
            "## Where a pass of 40960 tokens goes",
            "| attention | 7.100 | 1.8 % |",
        ] {
            assert!(document.contains(expected), "{expected} is missing in\n{document}");
        }
        assert!(!document.contains("Compared with") && !document.contains("Not measured"), "{document}");
    }
}
