//! The GPU, data on it, and how an operation is measured.

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use benches::Random;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Throughput};
use half::bf16;
use moetrace_cuda::{Buffer, Compiler, CudaError, Device, Libraries, Product, ProductLibrary, ProductShape};
use moetrace_model::Gpu;

use crate::report::{self, bandwidth, checked, flops, line, median, milliseconds, share};

/// Random elements repeat after so many, a prime number, which no row's width divides.
const PERIOD: usize = 4_194_301;
/// Bytes that the copy which stands for the memory's speed reads, and as many it writes.
const COPIED: usize = 1 << 30;
/// The side of the matrices whose product stands for the tensor cores' speed.
const SIDE: usize = 8192;
/// Runs of what everything else is compared with.
const REPEATS: usize = 18;

/// A GPU with its libraries and some random numbers.
pub(crate) struct Place {
    libraries: Libraries,
    ordinal: usize,
    pub(crate) device: Device,
    pub(crate) compiler: Compiler,
    pub(crate) library: ProductLibrary,
    values: Buffer<bf16>,
}

/// What the GPU does at its best, measured in the same run.
pub(crate) struct Ceilings {
    /// Floating-point operations a second of a large product in bf16.
    pub(crate) matrix: f64,
}

/// What an operation moves or computes, and so what its speed is compared with.
#[derive(Clone, Copy)]
pub(crate) enum Work<'a> {
    /// Bytes read and written: a copy of as many.
    Bytes(usize),
    /// Floating-point operations: the large product.
    Flops(usize, &'a Ceilings),
}

/// Queues the operation once.
pub(crate) type Queue<'a> = Box<dyn FnMut() -> Result<(), CudaError> + 'a>;
/// Benches of one kind.
pub(crate) type Group<'a> = BenchmarkGroup<'a, WallTime>;

impl Place {
    pub(crate) fn open() -> Result<Self> {
        let folders = |name: &str| -> Vec<PathBuf> {
            env::var_os(name).map(|value| env::split_paths(&value).collect()).unwrap_or_default()
        };
        let toolkits = [folders("CUDA_HOME"), folders("CUDA_PATH")].concat();
        let libraries = Libraries::new(&toolkits, &folders("MOETRACE_SITE_PACKAGES"));
        let ordinal = env::var("MOETRACE_TEST_CUDA_DEVICE").map_or(Ok(0), |number| number.parse());
        let ordinal = ordinal.context("MOETRACE_TEST_CUDA_DEVICE is no number")?;
        let device = Device::open(libraries.driver()?, ordinal)?;
        let compiler = Compiler::new(libraries.nvrtc()?, None);
        let library = ProductLibrary::open(&device, libraries.cublaslt()?)?;
        let mut random = Random(1);
        // Zeros would need less power, and run faster.
        let values: Vec<bf16> = (0..PERIOD).map(|_| bf16::from_f32(random.unit() / 10.0 - 0.05)).collect();
        let values = device.upload(&values)?;
        Ok(Self { libraries, ordinal, device, compiler, library, values })
    }

    /// The same GPU for an engine to keep.
    pub(crate) fn gpu(&self) -> Result<Gpu, CudaError> {
        let device = Device::open(self.libraries.driver()?, self.ordinal)?;
        let compiler = Compiler::new(self.libraries.nvrtc()?, None);
        Ok(Gpu { device, compiler, cublaslt: self.libraries.cublaslt()? })
    }

    /// Says what is measured.
    pub(crate) fn introduce(&self) {
        let (major, minor) = self.device.capability();
        line("gpu", &[self.device.name()]);
        line("capability", &[&format!("{major}.{minor}")]);
        line("driver", &[&driver_version()]);
        line("nvrtc", &[&self.compiler.nvrtc().version().to_string()]);
        if let Ok((_, all)) = self.device.memory() {
            line("memory", &[&report::gib(all as u64)]);
        }
    }

    /// Elements from -0.05 to 0.05.
    pub(crate) fn elements(&self, count: usize) -> Result<Buffer<bf16>, CudaError> {
        let mut elements = self.device.zeros(count)?;
        for start in (0..count).step_by(PERIOD) {
            let end = count.min(start + PERIOD);
            let piece = self.values.part(0..end - start)?;
            self.device.copy(piece, &mut elements.part_mut(start..end)?)?;
        }
        Ok(elements)
    }

    /// Measures what others are compared with, and prints it.
    pub(crate) fn ceilings(&self) -> Result<Ceilings, CudaError> {
        let copy = self.copy_seconds(COPIED)?;
        let rate = 2.0 * COPIED as f64 / copy;
        line("ceiling", &["copy of 1 GiB", &milliseconds(copy), &bandwidth(rate)]);
        let shape = ProductShape { outputs: SIDE, inputs: SIDE, biased: false, usual_rows: SIDE };
        let product = Product::<bf16>::new(&self.device, &self.compiler, &self.library, shape)?;
        let (x, w) = (self.elements(SIDE * SIDE)?, self.elements(SIDE * SIDE)?);
        let mut out = self.device.zeros::<bf16>(SIDE * SIDE)?;
        let taken = self.seconds(&mut || product.run(x.all(), w.all(), None, &mut out.all_mut()))?;
        let matrix = 2.0 * (SIDE as f64).powi(3) / taken;
        line("ceiling", &["bf16 product of 8192 x 8192 x 8192", &milliseconds(taken), &flops(matrix)]);
        Ok(Ceilings { matrix })
    }

    /// Of a copy that reads so many bytes and writes them.
    fn copy_seconds(&self, bytes: usize) -> Result<f64, CudaError> {
        let from = self.elements(bytes.div_ceil(2))?;
        let mut to = self.device.zeros::<bf16>(from.len())?;
        self.seconds(&mut || self.device.copy(from.all(), &mut to.all_mut()))
    }

    fn seconds(&self, queue: &mut dyn FnMut() -> Result<(), CudaError>) -> Result<f64, CudaError> {
        let times = (0..REPEATS).map(|_| self.device.time(&mut *queue)).collect::<Result<Vec<f32>, _>>()?;
        Ok(f64::from(median(&times).unwrap_or(f32::NAN)) / 1e3)
    }

    /// Measures an operation and prints its line, if criterion's filter lets it. Only then is it made ready, with
    /// memory that is given back afterwards.
    pub(crate) fn measure<'q>(
        &self,
        group: &mut Group<'_>,
        (name, tokens): (&str, Option<usize>),
        work: Work<'_>,
        prepare: impl FnOnce() -> Result<Queue<'q>, CudaError>,
    ) {
        let tokens = tokens.map_or_else(|| "-".to_owned(), |tokens| tokens.to_string());
        let (mut prepare, mut queue, mut times) = (Some(prepare), None, Vec::new());
        group.throughput(match work {
            Work::Bytes(bytes) => Throughput::Bytes(bytes as u64),
            Work::Flops(operations, _) => Throughput::Elements(operations as u64),
        });
        group.bench_function(BenchmarkId::new(name, &tokens), |bencher| {
            bencher.iter_custom(|runs| {
                if let Some(prepare) = prepare.take() {
                    queue = Some(checked(prepare()));
                }
                let Some(queue) = &mut queue else { return Duration::ZERO };
                let run = |_| checked(self.device.time(&mut *queue));
                let taken: Vec<f32> = (0..runs).map(run).collect();
                times.extend_from_slice(&taken);
                Duration::from_secs_f64(taken.iter().map(|one| f64::from(*one)).sum::<f64>() / 1e3)
            });
        });
        drop(queue);
        let Some(taken) = median(&times).map(|taken| f64::from(taken) / 1e3) else { return };
        let (rate, part) = match work {
            Work::Bytes(bytes) => {
                let copy = checked(self.copy_seconds(bytes.div_ceil(2)));
                (bandwidth(bytes as f64 / taken), share(copy, taken))
            }
            Work::Flops(operations, ceilings) => {
                let rate = operations as f64 / taken;
                (flops(rate), share(rate, ceilings.matrix))
            }
        };
        line("kernel", &[name, &tokens, &milliseconds(taken), &rate, &part]);
    }
}

/// The first word of what Linux tells that looks like a version, 580.95.05; containers may hide that file, and then
/// NVIDIA's own tool is asked.
fn driver_version() -> String {
    let version = |text: &str| -> Option<String> {
        let is_version =
            |word: &&str| word.contains('.') && word.starts_with(|first: char| first.is_ascii_digit());
        text.split_whitespace().find(is_version).map(str::to_owned)
    };
    let told = std::fs::read_to_string("/proc/driver/nvidia/version").unwrap_or_default();
    let asked = || {
        let mut tool = std::process::Command::new("nvidia-smi");
        let output = tool.args(["--query-gpu=driver_version", "--format=csv,noheader"]).output().ok()?;
        version(&String::from_utf8_lossy(&output.stdout))
    };
    version(&told).or_else(asked).unwrap_or_else(|| "unknown".to_owned())
}
