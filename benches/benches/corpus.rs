//! Reading, sampling and tokenising with the embedded model's tokenizer; one element is one byte of source.

use std::path::Path;

use anyhow::Result;
use benches::write_texts;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use moetrace_corpus::{CorpusSettings, SourceSpec, TextTokenizer, plan};

fn measure(criterion: &mut Criterion) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("texts.jsonl");
    write_texts(&path, 2_000, 3)?;
    let bytes = std::fs::metadata(&path)?.len();
    let tokenizer = TextTokenizer::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/model"))?;
    let source = [SourceSpec { name: "texts".into(), path, column: None, listed: vec![] }];
    let mut group = criterion.benchmark_group("corpus");
    group.throughput(Throughput::Bytes(bytes)).sample_size(10);
    for (name, traces) in [("take every text", 2_000), ("take one of twenty", 100)] {
        let settings = CorpusSettings { traces, ..CorpusSettings::default() };
        group.bench_function(name, |b| b.iter(|| plan(&source, Some(&tokenizer), &settings, &mut |_| {})));
    }
    group.finish();
    Ok(())
}

fn corpus(criterion: &mut Criterion) {
    assert!(measure(criterion).is_ok(), "the bench's own set-up failed");
}

criterion_group!(benches, corpus);
criterion_main!(benches);
