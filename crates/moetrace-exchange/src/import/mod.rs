//! Traces of other tools, made into runs.
//!
//! Every source is read twice: once to check all of it and to count its texts, before anything is written; once to be
//! played into the same loop that collects runs, as if a model had routed it. So a run that was imported is committed,
//! resumed, verified and counted like any other.

mod engine;
mod esft;
mod flame;
mod layer_files;
mod lists;
mod npy;
mod plan;
mod text;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use moetrace_metrics::MetricsSettings;
use moetrace_model::ModelError;
use moetrace_routing::WeightPrecision;
use moetrace_run::{
    Collect, Execution, Outcome, RealFs, ResolvedSetting, RunError, RunEvent, RunFolder, collect,
};

use crate::ExchangeError;

/// How foreign files are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImportLayout {
    /// Score files of ESFT: a folder of `expert_weights_LAYER.txt`, one line a text.
    Esft,
    /// FLAME-MoE-Traces: `actives/iter_N/layer_LL.parquet` beside `samples/*.parquet`.
    Flame,
    /// `NumPy` arrays `[tokens, layers, K]`, one a text.
    Npy,
}

impl ImportLayout {
    /// Its name in settings and in the manifest.
    pub fn name(self) -> &'static str {
        match self {
            Self::Esft => "esft",
            Self::Flame => "flame",
            Self::Npy => "npy",
        }
    }
}

/// What is to be imported, and what its files do not say.
#[derive(Debug, Clone, PartialEq)]
pub struct ImportSettings {
    /// How the files are laid out.
    pub layout: ImportLayout,
    /// Data sets by name, and where their files are.
    pub sources: Vec<(String, PathBuf)>,
    /// What the model is called.
    pub model: String,
    /// E, where the files do not say it.
    pub experts: Option<usize>,
    /// K, where the files do not say it.
    pub chosen: Option<usize>,
    /// The model's own numbers of the layers, where the files do not say them, or have more than those.
    pub layers: Option<Vec<u16>>,
    /// Rows of a text, where the files have no boundaries between texts.
    pub text_tokens: Option<usize>,
    /// How weights are rounded.
    pub weights: WeightPrecision,
    /// Most tokens of a shard.
    pub shard_tokens: usize,
}

/// How an import is carried out.
#[derive(Debug)]
pub struct ImportHow<'a> {
    /// Threads that encode.
    pub threads: usize,
    /// Every setting and its source, for the manifest.
    pub settings: Vec<ResolvedSetting>,
    /// Who is at work.
    pub holder: &'a str,
    /// Set from outside to stop.
    pub stop: &'a AtomicBool,
    /// Do damaged shards again.
    pub repair: bool,
    /// Where a run that is there already is moved, so that the import starts over. Nothing is moved before all files
    /// were read.
    pub set_aside: Option<&'a Path>,
}

/// Tokens played at once; no byte depends on it.
const TOKENS_PER_PASS: usize = 16_384;

/// Reads the sources, checks all of them, and writes the run. The same call again continues one that was cut short.
///
/// # Errors
/// An [`ExchangeError`] with file and line or row, before anything is written; [`ExchangeError::Run`] for what can go
/// wrong with any run.
pub fn import(
    settings: &ImportSettings,
    folder: &RunFolder,
    how: ImportHow<'_>,
    on_event: &mut dyn FnMut(RunEvent<'_>),
) -> Result<Outcome, ExchangeError> {
    let plan = plan::plan(settings)?;
    if let Some(aside) = how.set_aside {
        folder.set_aside(aside)?;
    }
    let geometry = plan.geometry.clone();
    let execution =
        Execution { tokens_per_pass: TOKENS_PER_PASS, threads: how.threads, device: "import".into() };
    let run = Collect {
        fs: &RealFs,
        folder,
        plan: &plan,
        settings: how.settings,
        execution: &execution,
        metrics: MetricsSettings::default(),
        range: None,
        repair: how.repair,
        vocabulary: None,
        process: None,
        holder: how.holder,
        stop: how.stop,
    };
    let mut load = || Ok(Box::new(engine::Playing::new(settings.clone(), geometry.clone())) as Box<_>);
    collect(&run, &mut load, on_event).map_err(own)
}

/// The reader's own error, where one ended the run.
fn own(error: RunError) -> ExchangeError {
    match error {
        RunError::Model(ModelError::Sink(sink)) => match sink.into_inner().downcast::<ExchangeError>() {
            Ok(own) => *own,
            Err(other) => RunError::Model(ModelError::Sink(moetrace_routing::SinkError::new(other))).into(),
        },
        other => other.into(),
    }
}
