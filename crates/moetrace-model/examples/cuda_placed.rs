//! Tokens per second of the CUDA engine with weights elsewhere: `cuda_placed DIR bf16|nf4 SAMPLESxLENGTH PLACEMENT ...`
//!
//! A placement is `resident`, or `host`, `disk` or `host=LAYERS` with `:CHUNK` tokens, and `:parked`, `:groups=G` or
//! `:table` (the embedding stays on the host) behind it. Prints for each what it holds, its speed, the share of time in
//! which operations waited for copies, and a hash of all routing, which is the same for all.

use std::hash::{DefaultHasher, Hasher as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use moetrace_cuda::{Compiler, Device, Libraries};
use moetrace_model::synthetic::random_batch;
use moetrace_model::{
    Checkpoint, CheckpointSettings, CudaEngine, CudaMemoryPlan, CudaSettings, Engine as _, Gpu, ModelConfig,
    Place, Placement, Precision,
};
use moetrace_routing::{Planes, RoutingSink, RoutingView, SinkError, TokenBatch};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

const PASSES: usize = 3;

/// Hashes every bit of the routing, if asked to.
struct Hash(Option<DefaultHasher>);

impl RoutingSink for Hash {
    fn wants(&self) -> Planes {
        Planes::default()
    }
    fn begin(&mut self, _: &TokenBatch) -> Result<(), SinkError> {
        Ok(())
    }
    fn record(&mut self, view: &RoutingView<'_>) -> Result<(), SinkError> {
        if let Some(hasher) = &mut self.0 {
            view.experts().iter().for_each(|id| hasher.write_u16(id.0));
            view.weights().unwrap_or_default().iter().for_each(|weight| hasher.write_u32(weight.to_bits()));
        }
        Ok(())
    }
    fn end(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

fn placement(config: &ModelConfig, tokens: usize, text: &str) -> Fallible<Placement> {
    let resident = Placement::resident(config, tokens);
    let mut parts = text.split(':');
    let place = parts.next().unwrap_or_default();
    let layers = config.layers();
    let mut placement = match place.split_once('=') {
        _ if place == "resident" => resident,
        Some(("host", some)) => {
            let some: usize = some.parse()?;
            let streams = |layer: usize| (layer + 1) * some / layers > layer * some / layers;
            let place = |layer| if streams(layer) { Place::Host } else { Place::Device };
            Placement { layers: (0..layers).map(place).collect(), ..resident }
        }
        _ if place == "host" => Placement { layers: vec![Place::Host; layers], ..resident },
        _ if place == "disk" => Placement { layers: vec![Place::Disk; layers], ..resident },
        _ => return Err(format!("{text}: no placement").into()),
    };
    for part in parts {
        match part.split_once('=') {
            _ if part == "parked" => placement.parks_hidden = true,
            _ if part == "table" => placement.embedding = Place::Host,
            Some(("groups", groups)) => placement.expert_groups = groups.parse()?,
            _ => placement.tokens_per_chunk = part.parse()?,
        }
    }
    Ok(placement)
}

fn main() -> Fallible<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dir, precision, shape, placements @ ..] = &arguments[..] else {
        return Err("usage: cuda_placed DIR bf16|nf4 SAMPLESxLENGTH PLACEMENT ...".into());
    };
    let dir = Path::new(dir);
    let precision = if precision == "bf16" { Precision::Bf16 } else { Precision::Nf4 };
    let (samples, length) = shape.split_once('x').ok_or("expected SAMPLESxLENGTH")?;
    let (samples, length): (usize, usize) = (samples.parse()?, length.parse()?);
    let toolkits: Vec<PathBuf> = std::env::var_os("CUDA_HOME").map(PathBuf::from).into_iter().collect();
    let libraries = Libraries::new(&toolkits, &[]);
    let config = ModelConfig::read(dir)?;
    let settings = CudaSettings { precision, ..CudaSettings::default() };
    let cache = tempfile::tempdir()?;
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    let mut fastest = 0.0;
    for text in placements {
        let placement = placement(&config, samples * length, text)?;
        let device = Device::open(libraries.driver()?, 0)?;
        let compiler = Compiler::new(libraries.nvrtc()?, Some(cache.path()));
        let gpu = Gpu { device, compiler, cublaslt: libraries.cublaslt()? };
        let (free, all) = gpu.device.memory()?;
        let checkpoint = Checkpoint::open(dir, &CheckpointSettings::default())?;
        let start = Instant::now();
        let plan = CudaMemoryPlan::new(&config, Some(&checkpoint), &settings, gpu.device.architecture())?;
        let mut engine = CudaEngine::load_placed(&checkpoint, &settings, &placement, gpu)?;
        let loaded = start.elapsed().as_secs_f64();
        let batch = random_batch(samples, length, config.vocab(), 1)?;
        let mut hash = Hash(Some(DefaultHasher::new()));
        engine.run(&batch, &mut hash)?;
        let before = engine.usage();
        let start = Instant::now();
        for _ in 0..PASSES {
            engine.run(&batch, &mut Hash(None))?;
        }
        let rate = (PASSES * batch.len()) as f64 / start.elapsed().as_secs_f64();
        let usage = engine.usage();
        let watch = Device::open(libraries.driver()?, 0)?;
        let used = all as u64 - watch.memory()?.0 as u64;
        fastest = f64::max(fastest, rate);
        println!(
            "{text:<28} {rate:>8.0} tokens/s {:>5.1} % of the fastest, waited {:>4.1} %, hash {:016x}; loaded in {loaded:.2} s",
            100.0 * rate / fastest,
            100.0 * (usage.waited_ms - before.waited_ms) / (usage.passes_ms - before.passes_ms),
            hash.0.map_or(0, |hasher| hasher.finish()),
        );
        println!(
            "    device {:.3} GiB (planned {:.3} and {:.3} for CUDA), all used {:.3} GiB ({:.3} before), host {:.2} GiB",
            gib(usage.device_bytes),
            gib(plan.memory_of(&placement).total() - plan.memory_of(&placement).context_reserve),
            gib(plan.memory_of(&placement).context_reserve),
            gib(used),
            gib(all as u64 - free as u64),
            gib(usage.host_bytes),
        );
    }
    Ok(())
}
