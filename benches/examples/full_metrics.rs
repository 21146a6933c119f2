//! Every metric over a made-up run of DeepSeek-MoE-16B's geometry (27 layers, 6 of 64 experts): seconds and memory.
//!
//! ```sh
//! cargo run --release -p benches --example full_metrics -- FOLDER 10000000 2
//! ```
//!
//! A fourth argument `core` counts what `metrics --core` does: loads, pairs, entropies, balance, ESFT scores.
//!
//! Writes shards of 262,144 tokens (350 bytes a token) into FOLDER unless they are there, then counts them with that many
//! threads. Texts of a shard route as those of any other, under other sample ids.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result};
use benches::{Recorded, deepseek_geometry};
use moetrace_metrics::{MetricsFamilies, MetricsSet, MetricsSettings, TokenCounts};
use moetrace_routing::{SampleId, Span, TokenBatch};
use moetrace_trace::{SampleRow, ShardReader, ShardWriter, TraceSettings, write_samples};

const LENGTH: usize = 512;
const SAMPLES: usize = 512;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (folder, tokens, threads, core) = match arguments.as_slice() {
        [folder, tokens, threads] => (folder, tokens, threads, false),
        [folder, tokens, threads, core] if core == "core" => (folder, tokens, threads, true),
        _ => anyhow::bail!("expected FOLDER TOKENS THREADS [core]"),
    };
    let (folder, tokens, threads): (PathBuf, usize, usize) =
        (folder.into(), tokens.parse()?, threads.parse()?);
    std::fs::create_dir_all(&folder)?;
    let shards: Vec<(PathBuf, PathBuf)> = (0..tokens.div_ceil(LENGTH * SAMPLES))
        .map(|i| {
            (folder.join(format!("{i:05}.data.parquet")), folder.join(format!("{i:05}.samples.parquet")))
        })
        .collect();
    write(&shards)?;
    let begun = Instant::now();
    let set = count(&shards, threads, core)?;
    let counted = begun.elapsed().as_secs_f64();
    let report = set.report();
    let reported = begun.elapsed().as_secs_f64() - counted;
    let tokens = report.core.tokens;
    println!(
        "{tokens} tokens, {threads} threads: counted in {counted:.1} s ({:.0} tokens/s), report in {reported:.1} s, \
         {:.1} MB of JSON, {}, {} unique pairs",
        tokens as f64 / counted,
        serde_json::to_vec(&report)?.len() as f64 / 1e6,
        peak_memory(),
        report.core.overall.unique_pairs
    );
    Ok(())
}

/// Ids first, then everything, each thread with totals of its own.
fn count(shards: &[(PathBuf, PathBuf)], threads: usize, core: bool) -> Result<MetricsSet> {
    let (geometry, settings) = (deepseek_geometry()?, MetricsSettings::default());
    let families = if core {
        MetricsFamilies::default()
    } else {
        let mut counts = TokenCounts::default();
        for (data, samples) in shards {
            counts.add(&ShardReader::open(data, samples)?.token_ids()?.unwrap_or_default());
        }
        let vocabulary = Some(counts.most_frequent(&geometry));
        MetricsFamilies { contexts: true, vocabulary, ..MetricsFamilies::of_routing() }
    };
    let next = AtomicUsize::new(0);
    let work = || -> Result<MetricsSet> {
        let mut set = MetricsSet::new(&geometry, &settings, &families);
        while let Some((data, samples)) = shards.get(next.fetch_add(1, Ordering::Relaxed)) {
            ShardReader::open(data, samples)?.play(16_384, &mut set)?;
        }
        Ok(set)
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut total = work()?;
        for other in others {
            total.merge(other.join().ok().context("a thread panicked")??)?;
        }
        Ok(total)
    })
}

fn write(shards: &[(PathBuf, PathBuf)]) -> Result<()> {
    if shards.iter().all(|(data, samples)| data.exists() && samples.exists()) {
        return Ok(());
    }
    let mut recorded = Recorded::new(deepseek_geometry()?, SAMPLES, LENGTH, 1)?;
    let spans = recorded.batch.spans().to_vec();
    for (i, (data, samples)) in shards.iter().enumerate() {
        let id = |span: &Span| SampleId((i * SAMPLES) as u32 + span.sample.0);
        let renamed: Vec<Span> = spans.iter().map(|span| Span { sample: id(span), ..span.clone() }).collect();
        let (ids, positions) = (recorded.batch.token_ids().to_vec(), recorded.batch.positions().to_vec());
        recorded.batch = TokenBatch::new(ids, positions, renamed)?;
        write_shard(&recorded, data, samples)?;
    }
    Ok(())
}

fn write_shard(recorded: &Recorded, data: &Path, samples: &Path) -> Result<()> {
    let settings = TraceSettings { threads: 2, ..TraceSettings::default() };
    let mut writer = ShardWriter::new(&recorded.geometry, &settings, &"bench".into(), Vec::new(), None)?;
    recorded.play(&mut writer)?;
    std::fs::write(data, writer.finish()?.data)?;
    let row = |span: &Span| SampleRow {
        sample_id: span.sample,
        source_file: "bench.jsonl".into(),
        source_row: u64::from(span.sample.0),
        label: None,
        tokens: span.len as u32,
        truncated: false,
        begins_with_bos: span.begins_with_bos,
        text_hash: format!("{:032x}", span.sample.0),
        text: None,
    };
    let rows: Vec<SampleRow> = recorded.batch.spans().iter().map(row).collect();
    std::fs::write(samples, write_samples(Vec::new(), "bench", &rows, &settings)?)?;
    Ok(())
}

/// The most memory that the process has had, as Linux counts it.
fn peak_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.map_or_else(|| "peak memory unknown".to_owned(), |line| format!("peak memory {}", line.trim()))
}
