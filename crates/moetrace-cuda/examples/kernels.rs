//! Compiles every kernel for every architecture that it runs on; no GPU is needed.
//!
//! `kernels OUT [SITE_PACKAGES]`: writes `OUT/NUMBER.ARCHITECTURE.ptx` and prints a line for each: file, target,
//! title. `cargo xtask kernels` runs it and assembles what it wrote.

use std::error::Error;
use std::path::PathBuf;

use moetrace_cuda::{Architecture, Compiler, Libraries, all_kernels};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let out = args.next().ok_or("expected OUT [SITE_PACKAGES]")?;
    let site_packages: Vec<PathBuf> = args.collect();
    std::fs::create_dir_all(&out)?;
    let nvrtc = Libraries::new(&[], &site_packages).nvrtc()?;
    eprintln!("NVRTC {}", nvrtc.version());
    let compiler = Compiler::new(nvrtc, None);
    for (number, kernel) in all_kernels().iter().enumerate() {
        for architecture in Architecture::ALL.into_iter().filter(|one| kernel.runs_on(*one)) {
            let file = format!("{number:03}.{architecture}.ptx");
            std::fs::write(out.join(&file), compiler.compile(kernel, architecture)?)?;
            println!("{file}\t{architecture}\t{}", kernel.title());
        }
    }
    Ok(())
}
