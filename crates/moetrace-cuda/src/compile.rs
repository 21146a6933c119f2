//! Kernels compiled by NVRTC, and kept on disk.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use cudarc::nvrtc::{CompileError, CompileOptions, Ptx, compile_ptx_with_opts};

use crate::{Architecture, CudaError, Kernel, Nvrtc};

/// NVRTC and a folder for its results.
#[derive(Debug, Clone)]
pub struct Compiler {
    nvrtc: Nvrtc,
    cache: Option<PathBuf>,
}

impl Compiler {
    /// `cache` is a folder, made when it is first written to; without it everything is compiled anew.
    pub fn new(nvrtc: Nvrtc, cache: Option<&Path>) -> Self {
        Self { nvrtc, cache: cache.map(Path::to_owned) }
    }

    /// The compiler behind it.
    pub fn nvrtc(&self) -> Nvrtc {
        self.nvrtc
    }

    /// A kernel as PTX, from the cache if it is there and whole.
    ///
    /// # Errors
    /// [`CudaError::Compile`] with the compiler's words, [`CudaError::Nvrtc`], [`CudaError::Cache`].
    pub fn compile(&self, kernel: &Kernel, architecture: Architecture) -> Result<String, CudaError> {
        let Some(folder) = &self.cache else {
            return compile(kernel, architecture);
        };
        let path = folder.join(self.file_name(kernel, architecture));
        if let Some(ptx) = read(&path)? {
            return Ok(ptx);
        }
        let ptx = compile(kernel, architecture)?;
        write(folder, &path, &ptx).map_err(|source| CudaError::Cache { path, source })?;
        Ok(ptx)
    }

    /// The function, the target, and a hash of all that decides the result.
    fn file_name(&self, kernel: &Kernel, architecture: Architecture) -> String {
        let mut parts = vec![kernel.source(), architecture.compute_name().to_owned()];
        parts.push(self.nvrtc.version().to_string());
        parts.extend(kernel.options());
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        format!("{}-{architecture}-{}.ptx", kernel.name(), &hasher.finalize().to_hex()[..32])
    }
}

fn compile(kernel: &Kernel, architecture: Architecture) -> Result<String, CudaError> {
    let options = CompileOptions {
        arch: Some(architecture.compute_name()),
        options: kernel.options(),
        name: Some(format!("{}.cu", kernel.name())),
        ..CompileOptions::default()
    };
    let failed = |doing, code: &dyn ToString| CudaError::Nvrtc { doing, code: code.to_string() };
    let ptx: Ptx = compile_ptx_with_opts(kernel.source(), options).map_err(|error| match error {
        CompileError::CompileError { options, log, .. } => CudaError::Compile {
            kernel: kernel.title(),
            options: options.join(" "),
            log: log.to_string_lossy().into_owned(),
        },
        other => failed("compiling", &other),
    })?;
    let bytes = ptx.as_bytes().unwrap_or_default();
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8(text.to_vec()).map_err(|error| failed("reading its result", &error))
}

/// A first line that a damaged file fails to have.
fn seal(ptx: &str) -> String {
    format!("// blake3 {}\n", blake3::hash(ptx.as_bytes()).to_hex())
}

/// What was written, or `None` where it is missing or damaged.
fn read(path: &Path) -> Result<Option<String>, CudaError> {
    let text = match std::fs::read(path) {
        Ok(bytes) => String::from_utf8(bytes).unwrap_or_default(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(CudaError::Cache { path: path.to_owned(), source }),
    };
    let ptx = text.split_once('\n').map_or("", |(_, ptx)| ptx);
    Ok((text.strip_suffix(ptx) == Some(&seal(ptx))).then(|| ptx.to_owned()))
}

/// Under another name first, so that no one ever reads half a file.
fn write(folder: &Path, path: &Path, ptx: &str) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(seal(ptx).as_bytes())?;
    file.write_all(ptx.as_bytes())?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_is_damaged_is_not() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("made when needed");
        let path = folder.join("kernel.ptx");
        assert_eq!(read(&path).unwrap(), None);
        for ptx in ["", "one line", ".version 8.0\n.target sm_80\n"] {
            write(&folder, &path, ptx).unwrap();
            assert_eq!(read(&path).unwrap().as_deref(), Some(ptx));
        }
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(read(&path).unwrap(), None, "{length} bytes of {}", whole.len());
        }
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
    }
}
