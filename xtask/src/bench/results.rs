//! What a bench and its peers printed, line by line.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

use super::PREFIX;

/// One line of a table.
pub(super) type Row = Vec<String>;

/// Everything that was printed for the document; tables in the order of their lines.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Results {
    /// GPU, driver, commit and the like, by name; the last line of a name counts.
    pub(super) facts: BTreeMap<String, String>,
    /// What, ms, rate.
    pub(super) ceilings: Vec<Row>,
    /// Name, tokens, ms, rate, share.
    pub(super) kernels: Vec<Row>,
    /// Pass, tokens, ms, tokens/s, rate, share.
    pub(super) passes: Vec<Row>,
    /// Tokens, stage, ms, share.
    pub(super) stages: Vec<Row>,
    /// What, why.
    pub(super) skipped: Vec<Row>,
    /// What the peers say.
    pub(super) peers: Vec<Peer>,
}

/// `NAME BxT: N tok/s M TF/s peak P GiB`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) name: String,
    pub(super) pass: String,
    pub(super) tokens_per_second: String,
    pub(super) rate: String,
    pub(super) peak: String,
}

impl Results {
    /// Reads lines behind the prefix, which other words may stand before, and those of peers; passes over all others.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut results = Self::default();
        for line in text.lines() {
            let Some((_, fields)) = line.split_once(PREFIX) else {
                results.peers.extend(Peer::parse(line));
                continue;
            };
            let mut fields = fields.trim_end().split('\t').map(str::to_owned);
            let kind = fields.next().unwrap_or_default();
            let row: Row = fields.collect();
            let (table, columns) = match kind.as_str() {
                "ceiling" => (&mut results.ceilings, 3),
                "kernel" => (&mut results.kernels, 5),
                "pass" => (&mut results.passes, 6),
                "stage" => (&mut results.stages, 4),
                "skipped" => (&mut results.skipped, 2),
                _ => {
                    ensure!(!row.is_empty(), "{kind:?} has no value: {line}");
                    results.facts.insert(kind, row.join(", "));
                    continue;
                }
            };
            ensure!(row.len() == columns, "{kind:?} has {} fields, not {columns}: {line}", row.len());
            table.push(row);
        }
        Ok(results)
    }
}

impl Peer {
    fn parse(line: &str) -> Option<Self> {
        let (head, tail) = line.trim().rsplit_once(": ")?;
        let (name, pass) = head.rsplit_once(' ')?;
        let (samples, length) = pass.split_once('x')?;
        let number = |text: &str| text.parse::<f64>().is_ok();
        let [tokens, "tok/s", rate, "TF/s", "peak", peak, "GiB"] = tail.split(' ').collect::<Vec<_>>()[..]
        else {
            return None;
        };
        let numbers = [samples, length, tokens, rate, peak].into_iter().all(number);
        let [name, pass, tokens_per_second, rate, peak] = [name, pass, tokens, rate, peak].map(str::to_owned);
        numbers.then_some(Self { name, pass, tokens_per_second, rate, peak })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_found_among_other_words() {
        let text = "running 3 tests\nmoetrace-bench\tgpu\tNVIDIA H200\n\
            Benchmarking rows/gathermoetrace-bench\tkernel\tgather\t4096\t0.0102\t3300 GB/s\t88.0 %\n\
            torch bf16 grouped 80x512: 76185 tok/s 367 TF/s peak 34.0 GiB\n\
            ratio: 3 tok/s\nmoetrace-bench\tskipped\tend_to_end\tno folder\n";
        let results = Results::parse(text).unwrap();
        assert_eq!(results.facts["gpu"], "NVIDIA H200");
        assert_eq!(results.kernels, [["gather", "4096", "0.0102", "3300 GB/s", "88.0 %"].map(str::to_owned)]);
        assert_eq!(results.skipped.len(), 1);
        let [peer] = &results.peers[..] else { unreachable!("{:?}", results.peers) };
        assert_eq!((peer.name.as_str(), peer.pass.as_str()), ("torch bf16 grouped", "80x512"));
        assert_eq!((peer.tokens_per_second.as_str(), peer.peak.as_str()), ("76185", "34.0"));
    }

    #[test]
    fn a_result_with_a_field_too_few_is_an_error() {
        assert!(Results::parse("moetrace-bench\tkernel\tgather\t4096\t0.0102\t3300 GB/s\n").is_err());
        assert!(Results::parse("moetrace-bench\tgpu\n").is_err());
    }
}
