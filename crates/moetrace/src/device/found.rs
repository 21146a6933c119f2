//! A GPU found, opened and tried, so that what follows can count on it.

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use moetrace_cuda::{
    Architecture, Compiler, CublasLt, CudaError, Device, Driver, GatherRows, Libraries, ListedGpu,
    ProductLibrary,
};
use moetrace_model::Gpu;

/// A GPU that works.
pub(crate) struct FoundGpu {
    /// What is known of it.
    pub(crate) facts: GpuFacts,
    architecture: Architecture,
    driver: Driver,
    compiler: Compiler,
    cublaslt: CublasLt,
    /// Opened to be tried, and taken by the first engine.
    device: RefCell<Option<Device>>,
}

/// What is known of a GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GpuFacts {
    /// Its number.
    pub(crate) ordinal: usize,
    /// What the driver calls it.
    pub(crate) name: String,
    /// Bytes that were free before we opened it.
    pub(crate) free: u64,
    /// Bytes of its memory.
    pub(crate) total: u64,
    /// GPUs that the driver shows.
    pub(crate) of: usize,
}

/// Why no GPU can be used.
#[derive(Debug)]
pub(crate) enum NoGpu {
    /// There is no driver: a machine without a GPU, as a rule.
    NoDriver(CudaError),
    /// The driver shows none.
    NoneShown,
    /// A library is missing, or something failed.
    Failed(CudaError),
    /// A library does not hold what it should.
    Broken(String),
}

impl FoundGpu {
    /// The GPU of a number, or the one with most free memory; compiled kernels are kept in `kernels`.
    pub(crate) fn find(ordinal: Option<usize>, kernels: Option<&Path>) -> Result<Self, NoGpu> {
        // Symbols that a library lacks are a panic in cudarc, and its libraries are the machine's.
        let tried = catch_unwind(AssertUnwindSafe(|| Self::open(ordinal, kernels)));
        tried.unwrap_or_else(|panic| Err(NoGpu::Broken(words(&*panic))))
    }

    fn open(ordinal: Option<usize>, kernels: Option<&Path>) -> Result<Self, NoGpu> {
        let libraries = cuda_libraries();
        let driver = libraries.driver().map_err(NoGpu::NoDriver)?;
        driver.check()?;
        let listed = ListedGpu::all(driver)?;
        let of = listed.len();
        let (chosen, free) = choose(listed, ordinal)?;
        // The small libraries first: a context takes a quarter of a second.
        let (nvrtc, cublaslt) = (libraries.nvrtc()?, libraries.cublaslt()?);
        let device = Device::open(driver, chosen.ordinal)?;
        let compiler = Compiler::new(nvrtc, kernels);
        // Whether this driver takes what this NVRTC makes, and cuBLASLt starts.
        GatherRows::<f32>::new(&device, &compiler)?;
        ProductLibrary::open(&device, cublaslt)?;
        let ListedGpu { ordinal, name, total, .. } = chosen;
        let facts = GpuFacts { ordinal, name, free, total, of };
        let architecture = device.architecture();
        Ok(Self { facts, architecture, driver, compiler, cublaslt, device: RefCell::new(Some(device)) })
    }

    /// What kernels are compiled for.
    pub(crate) fn architecture(&self) -> Architecture {
        self.architecture
    }

    /// The GPU for an engine.
    pub(crate) fn gpu(&self) -> Result<Gpu, CudaError> {
        let device = match self.device.take() {
            Some(device) => device,
            None => Device::open(self.driver, self.facts.ordinal)?,
        };
        Ok(Gpu { device, compiler: self.compiler.clone(), cublaslt: self.cublaslt })
    }
}

impl From<CudaError> for NoGpu {
    fn from(error: CudaError) -> Self {
        Self::Failed(error)
    }
}

impl fmt::Display for NoGpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDriver(error) | Self::Failed(error) => error.fmt(f),
            Self::NoneShown => f.write_str("the NVIDIA driver shows no GPU"),
            Self::Broken(why) => write!(f, "CUDA's libraries do not work together: {why}"),
        }
    }
}

/// The GPU of a number, or of those that can be used the one with most free memory, the first of equal ones.
fn choose(listed: Vec<ListedGpu>, ordinal: Option<usize>) -> Result<(ListedGpu, u64), NoGpu> {
    let found = listed.len();
    let of_number = |gpu: &ListedGpu| ordinal.is_none_or(|ordinal| gpu.ordinal == ordinal);
    let mut best: Option<(ListedGpu, u64)> = None;
    let mut unusable = None;
    for gpu in listed.into_iter().filter(of_number) {
        match gpu.free {
            Ok(free) if best.as_ref().is_none_or(|(_, most)| free > *most) => {
                best = Some((ListedGpu { free: Ok(free), ..gpu }, free));
            }
            Ok(_) => {}
            Err(why) => {
                unusable.get_or_insert(why);
            }
        }
    }
    match (best, unusable, ordinal) {
        (Some(best), _, _) => Ok(best),
        (None, Some(why), _) => Err(NoGpu::Failed(why)),
        (None, None, Some(ordinal)) if found > 0 => {
            Err(NoGpu::Failed(CudaError::NoSuchDevice { ordinal, found }))
        }
        _ => Err(NoGpu::NoneShown),
    }
}

/// CUDA's libraries as the environment names them: toolkits, then Python environments.
pub(crate) fn cuda_libraries() -> Libraries {
    let folders = |name: &str| -> Vec<PathBuf> {
        let value = std::env::var_os(name).filter(|value| !value.is_empty());
        value.map(|value| std::env::split_paths(&value).collect()).unwrap_or_default()
    };
    let toolkits = [folders("CUDA_HOME"), folders("CUDA_PATH")].concat();
    let mut packages = folders("MOETRACE_SITE_PACKAGES");
    for environment in [folders("VIRTUAL_ENV"), folders("CONDA_PREFIX")].concat() {
        packages.extend(site_packages(&environment));
    }
    Libraries::new(&toolkits, &packages)
}

/// `lib/python3.12/site-packages` of a Python environment, of every version that is there.
fn site_packages(environment: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(environment.join("lib")).into_iter().flatten().flatten();
    let of_python = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("python"));
    let mut found: Vec<PathBuf> = of_python.map(|entry| entry.path().join("site-packages")).collect();
    found.sort();
    found
}

/// What a panic said.
fn words(panic: &(dyn Any + Send)) -> String {
    let text =
        panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(ordinal: usize, free: u64) -> ListedGpu {
        ListedGpu { ordinal, name: format!("GPU {ordinal}"), total: 100, free: Ok(free) }
    }

    fn too_old(ordinal: usize) -> ListedGpu {
        let error = CudaError::DeviceTooOld { name: "GTX 1080".into(), found: (6, 1) };
        ListedGpu { ordinal, name: "GTX 1080".into(), total: 100, free: Err(error) }
    }

    #[test]
    fn the_gpu_with_most_free_memory_is_taken_unless_one_is_named() {
        let of = |listed, ordinal| choose(listed, ordinal).map(|(gpu, free)| (gpu.ordinal, free)).unwrap();
        assert_eq!(of(vec![gpu(0, 10), gpu(1, 30), gpu(2, 20)], None), (1, 30));
        assert_eq!(of(vec![gpu(0, 10), gpu(1, 10)], None), (0, 10));
        assert_eq!(of(vec![gpu(0, 10), gpu(1, 30)], Some(0)), (0, 10));
        assert_eq!(of(vec![too_old(0), gpu(1, 5)], None), (1, 5));
    }

    #[test]
    fn without_one_it_is_said_why() {
        let why = |listed, ordinal| choose(listed, ordinal).unwrap_err().to_string();
        assert_eq!(why(vec![], None), "the NVIDIA driver shows no GPU");
        assert_eq!(why(vec![], Some(0)), "the NVIDIA driver shows no GPU");
        assert_eq!(why(vec![gpu(0, 10)], Some(3)), "GPU 3 was asked for, there are 1");
        assert!(why(vec![too_old(0)], None).contains("GTX 1080 has compute capability 6.1"));
        assert!(why(vec![too_old(0), gpu(1, 5)], Some(0)).contains("GTX 1080"));
    }

    #[test]
    fn packages_of_every_python_of_an_environment_are_looked_through() {
        let root = tempfile::tempdir().unwrap();
        for version in ["python3.12", "python3.9"] {
            std::fs::create_dir_all(root.path().join("lib").join(version).join("site-packages")).unwrap();
        }
        std::fs::create_dir_all(root.path().join("lib/perl5")).unwrap();
        let found = site_packages(root.path());
        assert_eq!(found.len(), 2);
        assert!(found[0].ends_with("python3.12/site-packages"), "{found:?}");
        assert!(site_packages(&root.path().join("missing")).is_empty());
    }

    #[test]
    fn a_panic_in_a_library_is_a_reason_and_no_bug() {
        let panic = catch_unwind(|| std::panic::panic_any("Missing symbol".to_owned())).unwrap_err();
        let why = NoGpu::Broken(words(&*panic)).to_string();
        assert_eq!(why, "CUDA's libraries do not work together: Missing symbol");
    }
}
