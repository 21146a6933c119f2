//! One shard: its passes through the engine, its files, its commit.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use moetrace_corpus::{Sample, pack, passes};
use moetrace_metrics::{MetricsSettings, RoutingMetrics};
use moetrace_model::{Engine, ModelError};
use moetrace_routing::{RoundWeights, RoutingError, RoutingSink, Tee, TokenBatch};
use moetrace_trace::{SampleRow, ShardWriter, TraceError, TraceSettings, write_samples};

use crate::commit::{Finished, commit, input_hash, remove_leftovers};
use crate::error::OnPath;
use crate::stop::{Stopping, is_stop};
use crate::{CommitRecord, Execution, Fs, FsFile, Plan, RunError, RunEvent, RunFolder, Shard};

/// What every shard of a run is written with.
pub(crate) struct Writing<'a> {
    pub(crate) fs: &'a dyn Fs,
    pub(crate) folder: &'a RunFolder,
    pub(crate) plan: &'a Plan,
    pub(crate) plan_hash: &'a str,
    pub(crate) execution: &'a Execution,
    pub(crate) metrics: &'a MetricsSettings,
    pub(crate) stop: &'a AtomicBool,
}

/// A shard in being: what it has under temporary names.
struct Open {
    data: PathBuf,
    hidden: Option<PathBuf>,
}

impl Writing<'_> {
    /// Runs the shard's passes and commits it; `None` if it was told to stop, with nothing left behind.
    pub(crate) fn shard(
        &self,
        shard: &Shard,
        engine: &mut dyn Engine,
        on_event: &mut dyn FnMut(RunEvent<'_>),
    ) -> Result<Option<(CommitRecord, RoutingMetrics)>, RunError> {
        remove_leftovers(self.fs, self.folder, shard)?;
        let written = self.write(shard, engine, on_event).map_err(|e| self.place(shard, e));
        if !matches!(written, Ok(Some(_))) {
            // The first error is the one to report; what stays is removed when the shard is next begun.
            let _ = remove_leftovers(self.fs, self.folder, shard);
        }
        written
    }

    fn write(
        &self,
        shard: &Shard,
        engine: &mut dyn Engine,
        on_event: &mut dyn FnMut(RunEvent<'_>),
    ) -> Result<Option<(CommitRecord, RoutingMetrics)>, RunError> {
        let dataset = &self.plan.corpus.datasets[shard.dataset];
        let samples = &dataset.samples[shard.range()];
        let settings = self.trace_settings();
        let open = self.open(shard);
        let writer = ShardWriter::new(
            &self.plan.geometry,
            &settings,
            &dataset.name,
            self.create(&open.data)?,
            open.hidden.as_ref().map(|path| self.create(path)).transpose()?,
        )?;
        let metrics = RoutingMetrics::new(&self.plan.geometry, self.metrics);
        let mut sink = RoundWeights::new(Tee(writer, metrics), self.plan.content.weights);
        let mut hidden = HiddenRowChoice::new(self.plan, shard);
        let all = passes(samples, self.execution.tokens_per_pass);
        let of = all.len() as u64;
        for range in all {
            let part = &samples[range];
            let batch = hidden.ask(pack(&dataset.name, part)?)?;
            let mut stopping = Stopping { inner: &mut sink, stop: self.stop };
            match run_pass(engine, &batch, &mut stopping) {
                Err(error) if is_stop(&error) => return Ok(None),
                other => other?,
            }
            on_event(RunEvent::Pass { dataset: &dataset.name, samples: part.len(), tokens: batch.len() });
        }
        let Tee(writer, metrics) = sink.into_inner();
        let finished = self.finish(shard, samples, writer, open, &settings)?;
        let record = commit(self.fs, self.folder, shard, &finished, |files| CommitRecord {
            shard: shard.name.clone(),
            plan_hash: self.plan_hash.into(),
            rows: shard.tokens,
            first: shard.first as u64,
            samples: shard.samples as u64,
            input_hash: input_hash(samples),
            passes: of,
            halvings: 0,
            files,
            execution: self.execution.clone(),
            moetrace: env!("CARGO_PKG_VERSION").into(),
        })?;
        Ok(Some((record, metrics)))
    }

    /// Says which file the system refused to write: who encodes it knows no paths.
    fn place(&self, shard: &Shard, error: RunError) -> RunError {
        let trace = match &error {
            RunError::Trace(trace) => Some(trace),
            RunError::Model(ModelError::Sink(sink)) => sink.inner().downcast_ref::<TraceError>(),
            _ => None,
        };
        let Some(trace @ TraceError::Write { table, .. }) = trace else { return error };
        let Some(io) = trace.io_error() else { return error };
        let source = io.raw_os_error().map_or_else(|| io.kind().into(), io::Error::from_raw_os_error);
        let kind = if *table == "tokens" { "data" } else { *table };
        RunError::Io { action: "cannot write", path: self.folder.shard_path(kind, &shard.name), source }
    }

    fn open(&self, shard: &Shard) -> Open {
        let tmp = |kind: &str| self.folder.tmp_path(&format!("{}.{kind}", shard.name));
        Open { data: tmp("data"), hidden: self.plan.content.columns.hidden.then(|| tmp("hidden")) }
    }

    fn create(&self, path: &std::path::Path) -> Result<Box<dyn FsFile>, RunError> {
        self.fs.create_new(path).on("cannot create", path)
    }

    fn trace_settings(&self) -> TraceSettings {
        let mut metadata = std::collections::BTreeMap::new();
        metadata.insert("plan_hash".to_owned(), self.plan_hash.to_owned());
        metadata.insert("precision".to_owned(), self.plan.model.precision.clone());
        metadata.insert("router_dtype".to_owned(), self.plan.model.router_dtype.clone());
        TraceSettings {
            columns: self.plan.content.columns,
            metadata,
            weights: self.plan.content.weights,
            threads: self.execution.threads,
        }
    }

    fn finish(
        &self,
        shard: &Shard,
        samples: &[Sample],
        writer: ShardWriter<Box<dyn FsFile>>,
        open: Open,
        settings: &TraceSettings,
    ) -> Result<Vec<Finished>, RunError> {
        let written = writer.finish()?;
        if written.rows != shard.tokens {
            return Err(RunError::Rows { path: open.data, found: written.rows, expected: shard.tokens });
        }
        let mut finished = vec![Self::settle("data", open.data, written.data, written.rows)?];
        let dataset = &self.plan.corpus.datasets[shard.dataset];
        let rows: Vec<SampleRow> = samples.iter().map(|s| sample_row(&dataset.files, s)).collect();
        let tmp = self.folder.tmp_path(&format!("{}.samples", shard.name));
        let file = write_samples(self.create(&tmp)?, &dataset.name, &rows, settings)?;
        finished.push(Self::settle("samples", tmp, file, rows.len() as u64)?);
        if let (Some(path), Some(file)) = (open.hidden, written.hidden) {
            finished.push(Self::settle("hidden", path, file, written.hidden_rows)?);
        }
        Ok(finished)
    }

    fn settle(
        folder: &'static str,
        tmp: PathBuf,
        mut file: Box<dyn FsFile>,
        rows: u64,
    ) -> Result<Finished, RunError> {
        file.flush().and_then(|()| file.sync()).on("cannot write", &tmp)?;
        Ok(Finished { folder, tmp, rows })
    }
}

/// Runs one pass, and says in the user's terms where a token or a number was not what it must be.
fn run_pass(engine: &mut dyn Engine, batch: &TokenBatch, sink: &mut dyn RoutingSink) -> Result<(), RunError> {
    engine.run(batch, sink).map_err(|error| {
        if let ModelError::TokenRange { row, found, vocab } = error
            && let Some(span) = batch.span_of(row)
        {
            let (dataset, sample) = (span.dataset.to_string(), span.sample.0);
            return RunError::TokenRange { dataset, sample, position: batch.positions()[row], found, vocab };
        }
        if let ModelError::LossNotFinite { row, found } = error
            && let Some(span) = batch.span_of(row)
        {
            let (dataset, sample) = (span.dataset.to_string(), span.sample.0);
            return RunError::LossNotFinite {
                dataset,
                sample,
                position: batch.positions()[row],
                value: found,
            };
        }
        let (layer, row, plane, value) = match &error {
            ModelError::Routing(RoutingError::NotFinite { layer, row, plane, found }) => {
                (layer, *row, *plane, *found)
            }
            ModelError::NotFinite { layer, row, found } => (layer, *row, "router logit", *found),
            _ => return RunError::Model(error),
        };
        match batch.span_of(row) {
            Some(span) => RunError::NotFinite {
                layer: layer.0,
                plane: plane.into(),
                value,
                dataset: span.dataset.to_string(),
                sample: span.sample.0,
                position: batch.positions()[row],
            },
            None => RunError::Model(error),
        }
    })
}

fn sample_row(files: &[moetrace_corpus::SourceFile], sample: &Sample) -> SampleRow {
    SampleRow {
        sample_id: sample.id,
        source_file: files.get(sample.file as usize).map_or_else(String::new, |f| f.path.clone()),
        source_row: u64::from(sample.row),
        label: sample.label.as_ref().map(ToString::to_string),
        tokens: sample.tokens.len() as u32,
        truncated: sample.truncated,
        begins_with_bos: sample.begins_with_bos,
        text_hash: hex(&sample.text_hash),
        text: sample.text.clone(),
    }
}

/// Lower-case hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// Which rows of a shard keep their router input: the `n` with the smallest seeded hash, so that the choice
/// depends on the shard alone and not on how its passes are cut.
struct HiddenRowChoice {
    rows: Vec<u64>,
    next: u64,
}

impl HiddenRowChoice {
    fn new(plan: &Plan, shard: &Shard) -> Self {
        let wanted = if plan.content.columns.hidden { plan.content.hidden_rows } else { 0 };
        if wanted == 0 {
            return Self { rows: Vec::new(), next: 0 };
        }
        let mut key = *blake3::hash(shard.name.as_bytes()).as_bytes();
        key[..8].copy_from_slice(&plan.content.seed.to_le_bytes());
        let rank = |row: &u64| *blake3::keyed_hash(&key, &row.to_le_bytes()).as_bytes();
        let mut rows: Vec<u64> = (0..shard.tokens).collect();
        rows.sort_by_cached_key(rank);
        rows.truncate(wanted);
        rows.sort_unstable();
        Self { rows, next: 0 }
    }

    /// Asks for the chosen rows that fall into this batch, which continues where the last one ended.
    fn ask(&mut self, batch: TokenBatch) -> Result<TokenBatch, RunError> {
        let end = self.next + batch.len() as u64;
        let from = self.rows.partition_point(|&r| r < self.next);
        let to = self.rows.partition_point(|&r| r < end);
        let rows = self.rows[from..to].iter().map(|&r| (r - self.next) as u32).collect();
        self.next = end;
        batch.with_hidden_rows(rows).map_err(|e| RunError::Model(ModelError::Routing(e)))
    }
}
