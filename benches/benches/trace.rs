//! Writing and reading a shard at DeepSeek geometry; one element is one token.

use anyhow::Result;
use benches::{Recorded, deepseek_geometry};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use moetrace_routing::{Planes, RoutingSink, RoutingView, SinkError, TokenBatch};
use moetrace_trace::{SampleRow, ShardReader, ShardWriter, TraceSettings, write_samples};

const SAMPLES: usize = 64;
const LENGTH: usize = 512;

struct Silent;

impl RoutingSink for Silent {
    fn wants(&self) -> Planes {
        Planes::default()
    }
    fn begin(&mut self, _: &TokenBatch) -> Result<(), SinkError> {
        Ok(())
    }
    fn record(&mut self, _: &RoutingView<'_>) -> Result<(), SinkError> {
        Ok(())
    }
    fn end(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

fn write(recorded: &Recorded, threads: usize) -> Result<Vec<u8>> {
    let settings = TraceSettings { threads, ..TraceSettings::default() };
    let mut writer = ShardWriter::new(&recorded.geometry, &settings, &"bench".into(), Vec::new(), None)?;
    recorded.play(&mut writer)?;
    Ok(writer.finish()?.data)
}

fn rows(recorded: &Recorded) -> Vec<SampleRow> {
    let row = |span: &moetrace_routing::Span| SampleRow {
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
    recorded.batch.spans().iter().map(row).collect()
}

fn measure(criterion: &mut Criterion) -> Result<()> {
    let recorded = Recorded::new(deepseek_geometry()?, SAMPLES, LENGTH, 1)?;
    let tokens = recorded.batch.len();
    let mut group = criterion.benchmark_group("trace");
    group.throughput(Throughput::Elements(tokens as u64)).sample_size(10);
    for threads in [1, 2] {
        group.bench_function(format!("write, {threads} threads"), |b| {
            b.iter(|| write(&recorded, threads).map(|bytes| bytes.len()));
        });
    }
    let dir = tempfile::tempdir()?;
    let (data, samples) = (dir.path().join("data.parquet"), dir.path().join("samples.parquet"));
    let bytes = write(&recorded, 2)?;
    println!("trace size: {:.1} bytes per token", bytes.len() as f64 / tokens as f64);
    std::fs::write(&data, bytes)?;
    std::fs::write(
        &samples,
        write_samples(Vec::new(), "bench", &rows(&recorded), &TraceSettings::default())?,
    )?;
    group.bench_function("read all", |b| {
        b.iter_batched(
            || ShardReader::open(&data, &samples),
            |reader| reader.and_then(|reader| reader.play(16_384, &mut Silent)),
            BatchSize::PerIteration,
        );
    });
    group.finish();
    Ok(())
}

fn trace(criterion: &mut Criterion) {
    assert!(measure(criterion).is_ok(), "the bench's own set-up failed");
}

criterion_group!(benches, trace);
criterion_main!(benches);
