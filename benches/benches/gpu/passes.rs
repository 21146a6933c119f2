//! Whole passes of a checkpoint, within a card's memory limit, and where their time goes.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use benches::work::model_flops;
use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};
use moetrace_model::{CudaEngine, CudaMemoryPlan, ModelConfig, ModelError, PRESETS, Preset};

use crate::engine::{Listener, load, open, passes, random_batch, settings};
use crate::place::{Ceilings, Place};
use crate::report::{flops, gib, line, median, milliseconds, share};
use crate::shapes::SPAN;

/// Texts of 512 tokens in a pass.
const SAMPLES: [usize; 4] = [8, 20, 80, 128];
/// Those passes whose stages are timed.
const STAGED: [usize; 2] = [20, 80];

/// Passes of the checkpoint that `MOETRACE_BENCH_MODEL` names, as large as `MOETRACE_TIER` and the GPU have room for.
pub(crate) fn end_to_end(place: &Place, ceilings: &Ceilings, criterion: &mut Criterion) -> Result<()> {
    let Some(dir) = std::env::var_os("MOETRACE_BENCH_MODEL").map(PathBuf::from) else {
        line("skipped", &["end_to_end", "MOETRACE_BENCH_MODEL names no checkpoint folder"]);
        return Ok(());
    };
    let tier = std::env::var("MOETRACE_TIER").ok().map(|name| tier(&name));
    let tier = tier.transpose()?;
    if let Some(tier) = &tier {
        line("tier", &[tier.name, &gib(tier.limit)]);
    }
    let free = place.device.memory()?.0;
    let Some(largest) = largest_that_fits(place, &dir, tier, free as u64)? else { return Ok(()) };
    let mut engine = load(place, &dir, largest * SPAN)?;
    line("weights", &[&gib(engine.weight_bytes())]);
    line("buffers", &[&gib(engine.buffer_bytes()), &format!("{} tokens", largest * SPAN)]);
    let mut group = criterion.benchmark_group("end_to_end");
    group.sampling_mode(SamplingMode::Flat);
    let work = model_flops(engine.config()) as f64;
    for samples in SAMPLES.into_iter().filter(|samples| *samples <= largest) {
        let batch = random_batch(samples, engine.config().vocab())?;
        let (n, mut times) = (batch.len(), Vec::new());
        let name = format!("{samples}x{SPAN}");
        group.throughput(Throughput::Elements(n as u64));
        group.bench_function(BenchmarkId::from_parameter(&name), |bencher| {
            bencher.iter_custom(|runs| passes(&mut engine, &batch, runs, &mut times));
        });
        let Some(taken) = median(&times) else { continue };
        let (tokens, rate) = (n as f64 / taken, work * n as f64 / taken);
        let (speed, part) = (format!("{tokens:.0}"), share(rate, ceilings.matrix));
        line("pass", &[&name, &n.to_string(), &milliseconds(taken), &speed, &flops(rate), &part]);
        if STAGED.contains(&samples) {
            stages(&mut engine, samples)?;
        }
    }
    group.finish();
    let taken = free.saturating_sub(place.device.memory()?.0);
    line("taken", &[&gib(taken as u64)]);
    Ok(())
}

/// The preset that `MOETRACE_TIER` names.
fn tier(name: &str) -> Result<&'static Preset> {
    Preset::named(name).ok_or_else(|| {
        let names = PRESETS.map(|preset| preset.name).join(", ");
        anyhow!("MOETRACE_TIER: no preset is called {name:?}; there are {names}")
    })
}

/// The most texts whose pass has room in memory and within the limit, by the plan of which nothing is loaded yet.
fn largest_that_fits(place: &Place, dir: &Path, tier: Option<&Preset>, free: u64) -> Result<Option<usize>> {
    let (checkpoint, config) = (open(dir)?, ModelConfig::read(dir)?);
    let plan = CudaMemoryPlan::new(&config, Some(&checkpoint), &settings(0), place.device.architecture())?;
    let room = tier.map_or(free, |tier| tier.limit.min(free));
    for samples in SAMPLES.into_iter().rev() {
        let needed = plan.memory(samples * SPAN).total();
        if needed <= room {
            line("plan", &[&gib(needed), &format!("{} tokens", samples * SPAN)]);
            return Ok(Some(samples));
        }
        let why = format!("takes {}, there are {}", gib(needed), gib(room));
        line("skipped", &[&format!("end_to_end {samples}x{SPAN}"), &why]);
    }
    Ok(None)
}

/// Prints what each stage of a pass takes on the device, all layers together: the middle of five passes.
fn stages(engine: &mut CudaEngine, samples: usize) -> Result<()> {
    let batch = random_batch(samples, engine.config().vocab())?;
    let runs: Vec<Vec<(&'static str, f32)>> = (0..5)
        .map(|_| engine.run_timed(&batch, &mut Listener::default()))
        .collect::<Result<_, ModelError>>()?;
    let sum = |stages: &[(&str, f32)]| stages.iter().map(|(_, taken)| taken).sum::<f32>();
    let mut ordered: Vec<&Vec<(&str, f32)>> = runs.iter().collect();
    ordered.sort_by(|a, b| sum(a).total_cmp(&sum(b)));
    let middle = ordered[ordered.len() / 2];
    let all = f64::from(sum(middle));
    for (stage, taken) in middle {
        let (taken, tokens) = (f64::from(*taken), batch.len().to_string());
        line("stage", &[&tokens, stage, &format!("{taken:.3}"), &share(taken, all)]);
    }
    Ok(())
}
