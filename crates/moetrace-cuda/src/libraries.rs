//! CUDA's libraries, found and loaded when they are asked for.
//!
//! cudarc opens them by name alone and panics where that fails. So they are opened here by full path first: the
//! system's loader then answers cudarc's later request for the same name with the copy that is already open.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::CudaError;
use crate::nvml::Nvml;

/// Folders that may hold CUDA's libraries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Libraries {
    folders: Vec<PathBuf>,
}

/// The driver is loaded.
#[derive(Debug, Clone, Copy)]
pub struct Driver(());

/// NVRTC is loaded, and of this version.
#[derive(Debug, Clone, Copy)]
pub struct Nvrtc(Version);

/// cuBLASLt is loaded.
#[derive(Debug, Clone, Copy)]
pub struct CublasLt(());

/// Version of a part of CUDA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Before the point.
    pub major: i32,
    /// Behind it.
    pub minor: i32,
}

impl Libraries {
    /// Looks in toolkits (folders as `CUDA_HOME` names them), then in Python environments (their `site-packages`
    /// folders, where pip unpacks `nvidia-*` packages), then in the folders where toolkits usually are.
    pub fn new(toolkits: &[PathBuf], site_packages: &[PathBuf]) -> Self {
        let mut folders: Vec<PathBuf> =
            toolkits.iter().flat_map(|toolkit| toolkit_folders(toolkit)).collect();
        for packages in site_packages {
            folders.extend(subfolders(&packages.join("nvidia"), "").into_iter().map(|one| one.join("lib")));
        }
        folders.extend(toolkit_folders(Path::new("/usr/local/cuda")));
        // The newest version first.
        let versions = subfolders(Path::new("/usr/local"), "cuda-");
        folders.extend(versions.iter().rev().flat_map(|toolkit| toolkit_folders(toolkit)));
        folders.retain(|folder| folder.is_dir());
        Self { folders }
    }

    /// The folders that exist, in the order in which they are looked through.
    pub fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// Loads the driver's library.
    ///
    /// # Errors
    /// [`CudaError::LibraryMissing`], [`CudaError::LibraryBroken`].
    pub fn driver(&self) -> Result<Driver, CudaError> {
        // SAFETY: only opens the library, which cudarc will open anyhow.
        let found = unsafe { cudarc::driver::sys::is_culib_present() };
        let brings = "the NVIDIA driver";
        // The driver belongs to the system: the copy in a toolkit is a stub.
        if found { Ok(Driver(())) } else { Err(self.missing("libcuda.so.1", brings)) }
    }

    /// Loads NVRTC, the compiler.
    ///
    /// # Errors
    /// As [`driver`](Self::driver); [`CudaError::Nvrtc`] if it does not tell its version.
    pub fn nvrtc(&self) -> Result<Nvrtc, CudaError> {
        // SAFETY: only opens the library, which cudarc will open anyhow.
        let present = || unsafe { cudarc::nvrtc::sys::is_culib_present() };
        self.load("libnvrtc.so", present, "a CUDA toolkit or `pip install nvidia-cuda-nvrtc`")?;
        let (mut major, mut minor) = (0, 0);
        // SAFETY: two places for two numbers, and the library is loaded.
        let status = unsafe { cudarc::nvrtc::sys::nvrtcVersion(&raw mut major, &raw mut minor) };
        let doing = "asking its version";
        status.result().map_err(|error| CudaError::Nvrtc { doing, code: error.to_string() })?;
        Ok(Nvrtc(Version { major, minor }))
    }

    /// Loads cuBLASLt, the matrix products.
    ///
    /// # Errors
    /// As [`driver`](Self::driver).
    pub fn cublaslt(&self) -> Result<CublasLt, CudaError> {
        // SAFETY: only opens the library, which cudarc will open anyhow.
        let present = || unsafe { cudarc::cublaslt::sys::is_culib_present() };
        self.load("libcublasLt.so", present, "a CUDA toolkit or `pip install nvidia-cublas`")?;
        Ok(CublasLt(()))
    }

    fn load(
        &self,
        library: &'static str,
        present: impl Fn() -> bool,
        brings: &'static str,
    ) -> Result<(), CudaError> {
        // Versions that are known to have what is used.
        let names = [".13", ".12"].map(|version| format!("{library}{version}"));
        let paths = self.folders.iter().flat_map(|folder| names.iter().map(|name| folder.join(name)));
        if let Some(path) = paths.into_iter().find(|path| path.is_file()) {
            for companion in companions(&path) {
                open(companion)?;
            }
            open(path)?;
        }
        if present() { Ok(()) } else { Err(self.missing(library, brings)) }
    }

    fn missing(&self, library: &'static str, brings: &'static str) -> CudaError {
        CudaError::LibraryMissing { library, folders: self.folders.clone(), brings }
    }
}

impl Driver {
    /// The least version that will do: from it on drivers have `cuEventElapsedTime_v2`, by which passes are timed.
    pub const LEAST: Version = Version { major: 12, minor: 8 };

    /// The newest version of CUDA that it knows.
    ///
    /// # Errors
    /// [`CudaError::Driver`].
    pub fn version(self) -> Result<Version, CudaError> {
        let mut number = 0;
        // SAFETY: a place for one number, and the library is loaded; the call needs no initialisation.
        let status = unsafe { cudarc::driver::sys::cuDriverGetVersion(&raw mut number) };
        status.result().map_err(CudaError::driver("asking the driver's version"))?;
        Ok(Version::of_number(number))
    }

    /// Its release, as `580.159.04`, where NVIDIA's management library tells it.
    pub fn release(self) -> Option<String> {
        Nvml::open()?.driver_release()
    }

    /// Refuses a driver that lacks what every run calls.
    ///
    /// # Errors
    /// [`CudaError::DriverBelow`], [`CudaError::Driver`].
    pub fn check(self) -> Result<(), CudaError> {
        match self.version()? {
            found if found < Self::LEAST => Err(CudaError::DriverBelow { found, expected: Self::LEAST }),
            _ => Ok(()),
        }
    }
}

impl Version {
    /// As CUDA writes it in one number: 13000 is 13.0, 12080 is 12.8.
    fn of_number(number: i32) -> Self {
        Self { major: number / 1000, minor: number % 1000 / 10 }
    }
}

impl CublasLt {
    /// Its version, which has the major number of its CUDA.
    pub fn version(self) -> Version {
        // SAFETY: the library is loaded, and the call takes nothing.
        let number = unsafe { cudarc::cublaslt::sys::cublasLtGetVersion() };
        // As 130101 for 13.1.1.
        let part = |divisor: usize| i32::try_from(number / divisor % 100).unwrap_or_default();
        Version { major: part(10_000), minor: part(100) }
    }
}

impl Nvrtc {
    /// Its version.
    pub fn version(self) -> Version {
        self.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Loads a library for as long as the program runs.
fn open(path: PathBuf) -> Result<(), CudaError> {
    // SAFETY: runs the library's initialisers, which NVIDIA's libraries are made for.
    let opened = unsafe { libloading::Library::new(&path) };
    std::mem::forget(opened.map_err(|source| CudaError::LibraryBroken { path, source })?);
    Ok(())
}

/// Files beside a library that it opens by name alone when it works: NVRTC's table of built-in functions.
fn companions(library: &Path) -> Vec<PathBuf> {
    let prefix = match library.file_name().and_then(|name| name.to_str()) {
        Some(name) if name.starts_with("libnvrtc.so.") => name.replace("libnvrtc.so", "libnvrtc-builtins.so"),
        _ => return Vec::new(),
    };
    let entries = library.parent().into_iter().flat_map(std::fs::read_dir).flatten().flatten();
    let named = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix)) && path.is_file()
    };
    entries.map(|entry| entry.path()).filter(named).collect()
}

/// Where a toolkit keeps its libraries.
fn toolkit_folders(toolkit: &Path) -> [PathBuf; 2] {
    [toolkit.join("lib64"), toolkit.join("targets/x86_64-linux/lib")]
}

/// Folders in `parent` whose name begins with `prefix`, by name.
fn subfolders(parent: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten().map(|entry| entry.path());
    let named = |path: &PathBuf| {
        path.is_dir() && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix))
    };
    let mut found: Vec<PathBuf> = entries.filter(named).collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn toolkits_come_before_python_environments_and_only_what_exists_is_named() {
        let root = tempfile::tempdir().unwrap();
        let [toolkit, packages] = ["toolkit", "site-packages"].map(|name| root.path().join(name));
        let folders = [toolkit.join("lib64"), packages.join("nvidia/a/lib"), packages.join("nvidia/b/lib")];
        for folder in &folders {
            std::fs::create_dir_all(folder).unwrap();
        }
        std::fs::create_dir_all(packages.join("nvidia/no_libraries")).unwrap();
        let libraries = Libraries::new(&[toolkit, root.path().join("missing")], &[packages]);
        assert_eq!(libraries.folders()[..3], folders);
        assert!(libraries.folders().iter().all(|folder| folder.is_dir()));
    }

    #[test]
    fn a_file_that_is_no_library_is_named() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("lib64");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("libnvrtc.so.13"), "not a library").unwrap();
        let error = Libraries::new(&[root.path().to_owned()], &[]).nvrtc().unwrap_err();
        assert!(matches!(error, CudaError::LibraryBroken { .. }), "{error}");
    }

    #[test]
    fn versions_are_read_from_their_number_and_ordered() {
        let of = |number| Version::of_number(number).to_string();
        assert_eq!([of(13000), of(12080), of(11080)], ["13.0", "12.8", "11.8"]);
        assert!(Version::of_number(11080) < Driver::LEAST && Version::of_number(13000) > Driver::LEAST);
    }

    #[test]
    fn a_missing_library_is_named_with_what_brings_it() {
        let libraries = Libraries { folders: vec!["/a".into(), "/b".into()] };
        let message = libraries.missing("libnvrtc.so", "`pip install nvidia-cuda-nvrtc`").to_string();
        let expected =
            "libnvrtc.so was not found in /a, /b or where the system looks; it comes with `pip install";
        assert!(message.starts_with(expected), "{message}");
    }
}
