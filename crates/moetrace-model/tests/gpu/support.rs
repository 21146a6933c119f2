//! The GPU, poisoned outputs, random numbers.

use std::cell::Cell;
use std::env;
use std::fmt::Debug;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use half::{bf16, f16};
use moetrace_cuda::{Buffer, Compiler, CublasLt, Device, Element, Libraries};

/// A device and what compiles for it, shared by all tests.
pub(crate) struct Gpu {
    pub(crate) device: Device,
    pub(crate) compiler: Compiler,
    /// To be opened by who needs it: its handle belongs to one thread.
    pub(crate) cublaslt: CublasLt,
}

/// Held by tests of operations together, by each test that counts memory alone.
static USED: RwLock<()> = RwLock::new(());

thread_local! {
    /// This test's share of the GPU: a test has a thread, and ends with it.
    static SHARE: Cell<Option<RwLockReadGuard<'static, ()>>> = const { Cell::new(None) };
}

/// One test on the GPU: it takes and gives back memory that others would count, and counts what they would.
pub(crate) fn alone() -> RwLockWriteGuard<'static, ()> {
    // Tests that run one after the other have one thread, which may hold the share of the one before.
    SHARE.take();
    USED.write().unwrap_or_else(PoisonError::into_inner)
}

/// The GPU, or nothing where none was asked for; shared with other tests until the caller's thread ends.
pub(crate) fn gpu() -> Option<&'static Gpu> {
    static GPU: OnceLock<Option<Gpu>> = OnceLock::new();
    let share = SHARE.take().unwrap_or_else(|| USED.read().unwrap_or_else(PoisonError::into_inner));
    SHARE.set(Some(share));
    let opened = GPU.get_or_init(|| {
        if !asked() {
            return None;
        }
        let gpu = open();
        let (name, (major, minor)) = (gpu.device.name(), gpu.device.capability());
        let words = format!("on {name}, {major}.{minor}, NVRTC {}\n", gpu.compiler.nvrtc().version());
        std::io::stderr().write_all(words.as_bytes()).unwrap();
        Some(gpu)
    });
    opened.as_ref()
}

/// Whether a GPU was asked for; says so if not.
pub(crate) fn asked() -> bool {
    let asked = env::var_os("MOETRACE_TEST_CUDA").is_some_and(|asked| asked == "1");
    if !asked {
        // Not eprintln: the harness would keep it to itself.
        let words = "no GPU was asked for: nothing is compared (MOETRACE_TEST_CUDA=1 asks for one)\n";
        std::io::stderr().write_all(words.as_bytes()).unwrap();
    }
    asked
}

/// Whether a case of `work` elements or multiplications is to run. A checker of memory or races makes kernels hundreds of
/// times slower: with `MOETRACE_TEST_CHECKER=1` cases above `most` are left out.
pub(crate) fn runs(work: usize, most: usize) -> bool {
    static CHECKER: OnceLock<bool> = OnceLock::new();
    let checker =
        *CHECKER.get_or_init(|| env::var_os("MOETRACE_TEST_CHECKER").is_some_and(|asked| asked == "1"));
    !checker || work <= most
}

/// Opens the GPU, whose kernels are compiled once for all tests of a process.
pub(crate) fn open() -> Gpu {
    let folders = |name: &str| -> Vec<PathBuf> {
        env::var_os(name).map(|value| env::split_paths(&value).collect()).unwrap_or_default()
    };
    let toolkits = [folders("CUDA_HOME"), folders("CUDA_PATH")].concat();
    let libraries = Libraries::new(&toolkits, &folders("MOETRACE_SITE_PACKAGES"));
    let ordinal = env::var("MOETRACE_TEST_CUDA_DEVICE").map_or(0, |number| number.parse().unwrap());
    let driver = libraries.driver().unwrap_or_else(|error| panic!("a GPU was asked for: {error}"));
    let device = Device::open(driver, ordinal);
    let device = device.unwrap_or_else(|error| panic!("a GPU was asked for: {error}"));
    let nvrtc = libraries.nvrtc().unwrap_or_else(|error| panic!("{error}"));
    let cublaslt = libraries.cublaslt().unwrap_or_else(|error| panic!("{error}"));
    let cache = env::temp_dir().join("moetrace-gpu-tests");
    Gpu { device, compiler: Compiler::new(nvrtc, Some(&cache)), cublaslt }
}

/// An element whose bits a test can see.
pub(crate) trait Value: Element + moetrace_nf4::Target + Debug {
    /// A NaN that no kernel makes.
    const POISON: Self;
    fn bits(self) -> u32;
    fn of(value: f32) -> Self {
        Self::narrow(value)
    }
    fn wide(self) -> f32 {
        self.widen()
    }
}

impl Value for bf16 {
    const POISON: Self = Self::from_bits(0xFFB7);
    fn bits(self) -> u32 {
        u32::from(self.to_bits())
    }
}

impl Value for f16 {
    const POISON: Self = Self::from_bits(0xFDB7);
    fn bits(self) -> u32 {
        u32::from(self.to_bits())
    }
}

impl Value for f32 {
    const POISON: Self = Self::from_bits(0xFFB7_B7B7);
    fn bits(self) -> u32 {
        self.to_bits()
    }
}

/// Elements behind every output, which must stay as they are.
pub(crate) const CANARY: usize = 64;

/// Room for `length` results and the canary, all of it poisoned.
pub(crate) fn poisoned<T: Value>(gpu: &Gpu, length: usize) -> Buffer<T> {
    gpu.device.upload(&vec![T::POISON; length + CANARY]).unwrap()
}

/// The results, and a look at the canary.
pub(crate) fn results<T: Value>(gpu: &Gpu, buffer: &Buffer<T>) -> Vec<T> {
    let mut values = gpu.device.download(buffer.all()).unwrap();
    let canary = values.split_off(values.len() - CANARY);
    assert!(canary.iter().all(|value| value.bits() == T::POISON.bits()), "written past the end");
    values
}

/// Every value has the same bits, or is not a number on both sides.
pub(crate) fn assert_same<T: Value>(found: &[T], expected: &[T], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let differ = |(found, expected): (&T, &T)| {
        found.bits() != expected.bits() && !(found.wide().is_nan() && expected.wide().is_nan())
            || found.bits() == T::POISON.bits()
    };
    if let Some(place) = found.iter().zip(expected).position(differ) {
        let count = found.iter().zip(expected).filter(|pair| differ(*pair)).count();
        let (found, expected) = (found[place], expected[place]);
        panic!("{what}: {count} differ, first at {place}: {found:?}, expected {expected:?}");
    }
}

/// No value is further than so many units in the last place from what is expected.
pub(crate) fn assert_close<T: Value>(found: &[T], expected: &[T], units: i64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let top = 1i64 << (8 * size_of::<T>() - 1);
    let order = |value: &T| {
        if value.wide().is_sign_negative() { top - i64::from(value.bits()) } else { i64::from(value.bits()) }
    };
    for (place, (found, expected)) in found.iter().zip(expected).enumerate() {
        let apart = (order(found) - order(expected)).abs();
        assert!(
            apart <= units && !found.wide().is_nan(),
            "{what}, {place}: {found:?}, expected {expected:?}"
        );
    }
}

/// Numbers from a seed: splitmix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to `end`, without it.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.bits() % end as u64) as usize
    }

    /// Bell-shaped around 0, deviation about 1.
    pub(crate) fn normal(&mut self) -> f32 {
        let sum: f64 = (0..12).map(|_| (self.bits() >> 11) as f64 / (1u64 << 53) as f64).sum();
        (sum - 6.0) as f32
    }

    /// Bell-shaped elements.
    pub(crate) fn elements<T: Value>(&mut self, count: usize, deviation: f32) -> Vec<T> {
        (0..count).map(|_| T::of(self.normal() * deviation)).collect()
    }
}
