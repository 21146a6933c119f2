//! An engine, passes for it, and how they are measured.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use moetrace_model::{
    Checkpoint, CheckpointSettings, CudaEngine, CudaSettings, Engine as _, Precision, synthetic,
};
use moetrace_routing::{Planes, RoutingSink, RoutingView, SinkError, TokenBatch};

use crate::place::Place;
use crate::report::checked;
use crate::shapes::SPAN;

/// A checkpoint's files.
pub(crate) fn open(dir: &Path) -> Result<Checkpoint> {
    Ok(Checkpoint::open(dir, &CheckpointSettings::default())?)
}

/// Weights in 4 bits.
pub(crate) fn settings(tokens_per_pass: usize) -> CudaSettings {
    CudaSettings { precision: Precision::Nf4, tokens_per_pass, ..CudaSettings::default() }
}

/// Loads a checkpoint, quantised on the way if it is dense.
pub(crate) fn load(place: &Place, dir: &Path, tokens_per_pass: usize) -> Result<CudaEngine> {
    Ok(CudaEngine::load(&open(dir)?, &settings(tokens_per_pass), place.gpu()?)?)
}

/// So many texts of 512 random tokens.
pub(crate) fn random_batch(samples: usize, vocab: usize) -> Result<TokenBatch> {
    Ok(synthetic::random_batch(samples, SPAN, vocab, 8)?)
}

/// Runs a batch so many times; the seconds of each pass, by the host's clock, go behind `times`.
pub(crate) fn passes(
    engine: &mut CudaEngine,
    batch: &TokenBatch,
    runs: u64,
    times: &mut Vec<f64>,
) -> Duration {
    let mut all = Duration::ZERO;
    for _ in 0..runs {
        let start = Instant::now();
        checked(engine.run(batch, &mut Listener::default()));
        let taken = start.elapsed();
        times.push(taken.as_secs_f64());
        all += taken;
    }
    all
}

/// Takes what every trace takes, and looks at it.
#[derive(Default)]
pub(crate) struct Listener(u64);

impl RoutingSink for Listener {
    fn wants(&self) -> Planes {
        Planes::default()
    }
    fn begin(&mut self, _: &TokenBatch) -> Result<(), SinkError> {
        Ok(())
    }
    fn record(&mut self, view: &RoutingView<'_>) -> Result<(), SinkError> {
        self.0 += view.experts().iter().map(|expert| u64::from(expert.0)).sum::<u64>();
        Ok(())
    }
    fn end(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}
