//! The disk's side of a shard: its files, its numbers, its commit.

use std::io;
use std::path::{Path, PathBuf};

use moetrace_corpus::Sample;
use moetrace_metrics::{MetricsSettings, RoutingMetrics};
use moetrace_model::ModelError;
use moetrace_routing::{Planes, RoundWeights, RoutingSink as _, Tee};
use moetrace_trace::{SampleRow, ShardWriter, TraceError, TraceSettings, write_samples};

use crate::commit::{Finished, commit, input_hash, remove_leftovers};
use crate::error::OnPath;
use crate::handover::Heard;
use crate::{CommitRecord, Execution, Fs, FsFile, Plan, RunError, RunFolder, Shard, Usage};

/// What every shard of a run is written with.
#[derive(Clone, Copy)]
pub(crate) struct Writing<'a> {
    pub(crate) fs: &'a dyn Fs,
    pub(crate) folder: &'a RunFolder,
    pub(crate) plan: &'a Plan,
    pub(crate) plan_hash: &'a str,
    pub(crate) execution: &'a Execution,
    pub(crate) metrics: &'a MetricsSettings,
}

/// How a shard's passes were carried out, for its record: known when they are through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CarriedOut {
    pub(crate) passes: u64,
    /// Times it began again with smaller passes.
    pub(crate) halvings: u32,
    /// Most tokens of a pass, after those.
    pub(crate) tokens_per_pass: usize,
    pub(crate) usage: Option<Usage>,
}

/// A shard in being: who listens to its passes, and what it has under temporary names.
pub(crate) struct Open<'a> {
    shard: &'a Shard,
    settings: TraceSettings,
    data: PathBuf,
    hidden: Option<PathBuf>,
    sink: RoundWeights<Tee<ShardWriter<Box<dyn FsFile>>, RoutingMetrics>>,
}

impl Open<'_> {
    /// Which optional planes its listeners need.
    pub(crate) fn wants(&self) -> Planes {
        self.sink.wants()
    }
}

/// A shard that counts.
pub(crate) struct Committed {
    pub(crate) record: CommitRecord,
    pub(crate) metrics: RoutingMetrics,
}

impl Writing<'_> {
    /// Begins a shard where nothing of it is left; what fails leaves nothing behind.
    pub(crate) fn open<'s>(&self, shard: &'s Shard) -> Result<Open<'s>, RunError> {
        remove_leftovers(self.fs, self.folder, shard)?;
        self.create_all(shard).map_err(|error| self.cleared(shard, error))
    }

    /// Writes what is heard and commits the shard, or leaves nothing behind; `None` if its producer gave up.
    /// `failed` is called as soon as anything fails.
    pub(crate) fn write(
        &self,
        open: Open<'_>,
        heard: Heard,
        failed: impl FnOnce(),
    ) -> Result<Option<Committed>, RunError> {
        let shard = open.shard;
        match self.hear(open, heard) {
            Ok(Some(committed)) => Ok(Some(committed)),
            Ok(None) => {
                // What stays is removed when the shard is next begun.
                let _ = remove_leftovers(self.fs, self.folder, shard);
                Ok(None)
            }
            Err(error) => {
                failed();
                Err(self.cleared(shard, error))
            }
        }
    }

    fn hear(&self, mut open: Open<'_>, heard: Heard) -> Result<Option<Committed>, RunError> {
        let Some(how) = heard.play(&mut open.sink).map_err(ModelError::Sink)? else { return Ok(None) };
        let shard = open.shard;
        let samples = &self.plan.corpus.datasets[shard.dataset].samples[shard.range()];
        let (finished, metrics) = self.finish(open, samples)?;
        let record = commit(self.fs, self.folder, shard, &finished, |files| CommitRecord {
            shard: shard.name.clone(),
            plan_hash: self.plan_hash.into(),
            rows: shard.tokens,
            first: shard.first as u64,
            samples: shard.samples as u64,
            input_hash: input_hash(samples),
            passes: how.passes,
            halvings: how.halvings,
            files,
            execution: Execution { tokens_per_pass: how.tokens_per_pass, ..self.execution.clone() },
            usage: how.usage,
            moetrace: env!("CARGO_PKG_VERSION").into(),
        })?;
        Ok(Some(Committed { record, metrics }))
    }

    /// The first error is the one to report; what cannot be removed now is removed when the shard is next begun.
    fn cleared(&self, shard: &Shard, error: RunError) -> RunError {
        let _ = remove_leftovers(self.fs, self.folder, shard);
        self.place(shard, error)
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

    fn create_all<'s>(&self, shard: &'s Shard) -> Result<Open<'s>, RunError> {
        let tmp = |kind: &str| self.folder.tmp_path(&format!("{}.{kind}", shard.name));
        let settings = self.trace_settings();
        let (data, hidden) = (tmp("data"), self.plan.content.columns.hidden.then(|| tmp("hidden")));
        let writer = ShardWriter::new(
            &self.plan.geometry,
            &settings,
            &self.plan.corpus.datasets[shard.dataset].name,
            self.create(&data)?,
            hidden.as_ref().map(|path| self.create(path)).transpose()?,
        )?;
        let metrics = RoutingMetrics::new(&self.plan.geometry, self.metrics);
        let sink = RoundWeights::new(Tee(writer, metrics), self.plan.content.weights);
        Ok(Open { shard, settings, data, hidden, sink })
    }

    fn create(&self, path: &Path) -> Result<Box<dyn FsFile>, RunError> {
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
        open: Open<'_>,
        samples: &[Sample],
    ) -> Result<(Vec<Finished>, RoutingMetrics), RunError> {
        let Open { shard, settings, data, hidden, sink } = open;
        let Tee(writer, metrics) = sink.into_inner();
        let written = writer.finish()?;
        if written.rows != shard.tokens {
            return Err(RunError::Rows { path: data, found: written.rows, expected: shard.tokens });
        }
        let mut finished = vec![Self::settle("data", data, written.data, written.rows)?];
        let dataset = &self.plan.corpus.datasets[shard.dataset];
        let rows: Vec<SampleRow> = samples.iter().map(|s| sample_row(&dataset.files, s)).collect();
        let tmp = self.folder.tmp_path(&format!("{}.samples", shard.name));
        let file = write_samples(self.create(&tmp)?, &dataset.name, &rows, &settings)?;
        finished.push(Self::settle("samples", tmp, file, rows.len() as u64)?);
        if let (Some(path), Some(file)) = (hidden, written.hidden) {
            finished.push(Self::settle("hidden", path, file, written.hidden_rows)?);
        }
        Ok((finished, metrics))
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
