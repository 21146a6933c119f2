//! Every metric over a made-up run of DeepSeek-MoE-16B's geometry (27 layers, 6 of 64 experts): seconds and memory.
//!
//! ```sh
//! cargo run --release -p benches --example full_metrics -- FOLDER 10000000 2
//! ```
//!
//! A fourth argument `core` counts what `metrics --core` does: loads, pairs, entropies, balance, ESFT scores; `counts`
//! counts loads, pairs and transitions alone, as `benches/peer/counts.py` does.
//!
//! Writes shards of 262,144 tokens (350 bytes a token) into FOLDER unless they are there, then counts them with that many
//! threads. Texts of a shard route as those of any other, under other sample ids.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result};
use benches::{Recorded, deepseek_geometry};
use moetrace_metrics::{
    ExpertCounts, LayerCounts, MetricsError, MetricsFamilies, MetricsSet, MetricsSettings, TokenCounts,
};
use moetrace_routing::{SampleId, Span, TokenBatch};
use moetrace_trace::{SampleRow, ShardReader, ShardWriter, TraceSettings, write_samples};

const LENGTH: usize = 512;
const SAMPLES: usize = 512;
/// Rows of a pass, as the program reads them.
const ROWS: usize = 2_048;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (folder, tokens, threads, what) = match arguments.as_slice() {
        [folder, tokens, threads] => (folder, tokens, threads, "everything"),
        [folder, tokens, threads, what] => (folder, tokens, threads, what.as_str()),
        _ => anyhow::bail!("expected FOLDER TOKENS THREADS [core|counts]"),
    };
    let (folder, tokens, threads): (PathBuf, usize, usize) =
        (folder.into(), tokens.parse()?, threads.parse()?);
    std::fs::create_dir_all(&folder)?;
    let shards: Vec<Shard> = (0..tokens.div_ceil(LENGTH * SAMPLES))
        .map(|i| {
            (folder.join(format!("{i:05}.data.parquet")), folder.join(format!("{i:05}.samples.parquet")))
        })
        .collect();
    write(&shards)?;
    let (geometry, settings, begun) = (deepseek_geometry()?, MetricsSettings::default(), Instant::now());
    let families = match what {
        "counts" => return counts(&shards, threads),
        "core" => MetricsFamilies::default(),
        "everything" => everything(&shards)?,
        other => anyhow::bail!("{other}, expected core or counts"),
    };
    let set = count(&shards, threads, MetricsSet::merge, |data, samples, set| {
        let set = set.get_or_insert_with(|| MetricsSet::new(&geometry, &settings, &families));
        Ok(ShardReader::open(data, samples)?.play(ROWS, set)?)
    })?;
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

/// Every family; the token ids that get a table are counted first.
fn everything(shards: &[Shard]) -> Result<MetricsFamilies> {
    let mut counts = TokenCounts::default();
    for (data, samples) in shards {
        counts.add(&ShardReader::open(data, samples)?.token_ids()?.unwrap_or_default());
    }
    let vocabulary = Some(counts.most_frequent(&deepseek_geometry()?));
    Ok(MetricsFamilies { contexts: true, vocabulary, ..MetricsFamilies::of_routing() })
}

/// Loads, pairs and transitions, with the sums that `benches/peer/counts.py` prints.
fn counts(shards: &[Shard], threads: usize) -> Result<()> {
    let (geometry, settings, begun) = (deepseek_geometry()?, MetricsSettings::default(), Instant::now());
    let total = count(shards, threads, ExpertCounts::merge, |data, samples, counts| {
        let counts = match counts {
            Some(counts) => counts,
            None => counts.insert(ExpertCounts::new(&geometry, &settings)?),
        };
        Ok(ShardReader::open(data, samples)?.experts_only().play(ROWS, counts)?)
    })?;
    let report = total.report();
    let seconds = begun.elapsed().as_secs_f64();
    let seen = |table: fn(&LayerCounts) -> &Vec<u64>| {
        let cells = report.layers.iter().flat_map(table);
        cells.fold((0, 0), |(cells, sum), &n| (cells + usize::from(n > 0), sum + n))
    };
    let (loads, pairs, next) = (seen(|l| &l.loads), seen(|l| &l.pairs), seen(|l| &l.transitions));
    println!(
        "moetrace: {seconds:.2} s, (cells, sum) of loads {loads:?}, pairs {pairs:?}, transitions {next:?}"
    );
    Ok(())
}

type Shard = (PathBuf, PathBuf);

/// Each thread with totals of its own, merged.
fn count<T: Send>(
    shards: &[Shard],
    threads: usize,
    merge: impl Fn(&mut T, T) -> Result<(), MetricsError>,
    play: impl Fn(&Path, &Path, &mut Option<T>) -> Result<()> + Sync,
) -> Result<T> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<Option<T>> {
        let mut total = None;
        while let Some((data, samples)) = shards.get(next.fetch_add(1, Ordering::Relaxed)) {
            play(data, samples, &mut total)?;
        }
        Ok(total)
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut parts = work()?.into_iter().collect::<Vec<T>>();
        for other in others {
            parts.extend(other.join().ok().context("a thread panicked")??);
        }
        let mut total = parts.pop().context("no shard")?;
        for part in parts {
            merge(&mut total, part)?;
        }
        Ok(total)
    })
}

fn write(shards: &[Shard]) -> Result<()> {
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
