//! Tokens per second of the CUDA engine: `cuda_throughput DIR [f32|bf16|f16|nf4] [SAMPLESxLENGTH ...]`
//!
//! Counts choices and throws them away. CUDA's libraries are looked for in `CUDA_HOME` and where toolkits usually are.
//! Loads twice, with every kernel compiled the second time, and compares that with reading the files and no more, by as
//! many threads out of the same warm cache.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use moetrace_cuda::{Compiler, Device, Libraries, UploaderSettings};
use moetrace_model::synthetic::random_batch;
use moetrace_model::{Checkpoint, CheckpointSettings, CudaEngine, CudaSettings, Engine as _, Gpu, Precision};
use moetrace_routing::{Planes, RoutingSink, RoutingView, SinkError, TokenBatch};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// Passes of each size, of which the middle one counts.
const PASSES: usize = 5;

/// Counts choices, so that nothing can be optimised away.
struct Count(usize);

impl RoutingSink for Count {
    fn wants(&self) -> Planes {
        Planes::default()
    }
    fn begin(&mut self, _: &TokenBatch) -> Result<(), SinkError> {
        Ok(())
    }
    fn record(&mut self, view: &RoutingView<'_>) -> Result<(), SinkError> {
        self.0 += view.experts().len();
        Ok(())
    }
    fn end(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

/// Seconds that reading every file takes, each thread into a buffer of its own that it uses again.
fn read_all(checkpoint: &Checkpoint, UploaderSettings { threads, chunk }: UploaderSettings) -> Fallible<f64> {
    use std::os::unix::fs::FileExt as _;
    let mut chunks = Vec::new();
    for path in checkpoint.files() {
        let file = std::sync::Arc::new(File::open(path)?);
        let (bytes, step) = (file.metadata()?.len(), chunk.get());
        let starts = (0..bytes).step_by(step);
        chunks.extend(starts.map(|start| (file.clone(), start, step.min((bytes - start) as usize))));
    }
    let next = AtomicUsize::new(0);
    let read = || -> std::io::Result<()> {
        let mut buffer = vec![0; chunk.get()];
        while let Some((file, start, length)) = chunks.get(next.fetch_add(1, Ordering::Relaxed)) {
            file.read_exact_at(&mut buffer[..*length], *start)?;
        }
        Ok(())
    };
    let start = Instant::now();
    std::thread::scope(|scope| -> Fallible<()> {
        let threads: Vec<_> = (0..threads.get()).map(|_| scope.spawn(read)).collect();
        for thread in threads {
            thread.join().map_err(|_| "a reading thread panicked")??;
        }
        Ok(())
    })?;
    Ok(start.elapsed().as_secs_f64())
}

/// Loads after reading all files, and says what it took beside the reading. Kernels are kept in `cache`.
fn loaded(
    (dir, settings): (&Path, &CudaSettings),
    libraries: &Libraries,
    cache: &Path,
    when: &str,
) -> Fallible<CudaEngine> {
    let device = Device::open(libraries.driver()?, 0)?;
    let compiler = Compiler::new(libraries.nvrtc()?, Some(cache));
    let gpu = Gpu { device, compiler, cublaslt: libraries.cublaslt()? };
    let free = gpu.device.memory()?.0;
    let watch = Device::open(libraries.driver()?, 0)?;
    let threads = UploaderSettings::default();
    let checkpoint = Checkpoint::open(dir, &CheckpointSettings::default())?;
    read_all(&checkpoint, threads)?;
    let reading = read_all(&checkpoint, threads)?;
    let start = Instant::now();
    let checkpoint = Checkpoint::open(dir, &CheckpointSettings::default())?;
    let opened = start.elapsed().as_secs_f64();
    let engine = CudaEngine::load(&checkpoint, settings, gpu)?;
    let seconds = start.elapsed().as_secs_f64();
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    println!(
        "{}, {when}: loaded in {seconds:.2} s, of which {opened:.2} s headers; reading {:.2} GiB warm by {} threads takes \
         {reading:.2} s: {:.2} times as long",
        settings.precision,
        gib(checkpoint.total_bytes()),
        threads.threads,
        seconds / reading
    );
    println!(
        "weights {:.2} GiB, buffers {:.2} GiB, taken {:.2} GiB",
        gib(engine.weight_bytes()),
        gib(engine.buffer_bytes()),
        gib((free - watch.memory()?.0) as u64)
    );
    Ok(engine)
}

fn main() -> Fallible<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let dir =
        Path::new(arguments.first().ok_or("usage: cuda_throughput DIR [PRECISION] [SAMPLESxLENGTH ...]")?);
    let precision = match arguments.get(1).map(String::as_str) {
        Some("f32") => Precision::F32,
        Some("f16") => Precision::F16,
        Some("bf16") => Precision::Bf16,
        _ => Precision::Nf4,
    };
    let shape = |text: &String| -> Fallible<(usize, usize)> {
        let (samples, length) = text.split_once('x').ok_or("expected SAMPLESxLENGTH")?;
        Ok((samples.parse()?, length.parse()?))
    };
    let shapes = arguments.iter().skip(2).map(shape).collect::<Fallible<Vec<_>>>()?;
    let toolkits: Vec<PathBuf> = std::env::var_os("CUDA_HOME").map(PathBuf::from).into_iter().collect();
    let libraries = Libraries::new(&toolkits, &[]);
    let largest = shapes.iter().map(|(samples, length)| samples * length).max().unwrap_or(4096);
    let settings = CudaSettings { precision, tokens_per_pass: largest, ..CudaSettings::default() };
    let cache = tempfile::tempdir()?;
    let load = |when| loaded((dir, &settings), &libraries, cache.path(), when);
    drop(load("first")?);
    let mut engine = load("again")?;
    let active = engine.config().active_parameters();
    for (samples, length) in shapes {
        let batch = random_batch(samples, length, engine.config().vocab(), 1)?;
        let mut sink = Count(0);
        let mut taken = Vec::new();
        for _ in 0..=PASSES {
            let start = Instant::now();
            engine.run(&batch, &mut sink)?;
            taken.push(start.elapsed().as_secs_f64());
        }
        taken.remove(0);
        taken.sort_by(f64::total_cmp);
        let rate = batch.len() as f64 / taken[PASSES / 2];
        println!("{samples}x{length}: {rate:.0} tokens/s, {active} active parameters, {} choices", sink.0);
        let stages = engine.run_timed(&batch, &mut sink)?;
        let all: f32 = stages.iter().map(|(_, taken)| taken).sum();
        for (stage, taken) in stages {
            println!("    {stage:<22}{taken:>9.2} ms {:>5.1} %", 100.0 * taken / all);
        }
    }
    Ok(())
}
