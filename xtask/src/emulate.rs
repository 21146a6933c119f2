//! `cargo xtask emulate`: the grouped product that every GPU has, its own text run thread by thread on the CPU.

use std::process::Command;

use anyhow::Result;

use crate::{root, run, target_dir};

/// GATED and GATHERED: gate and up, the same gathered, down.
const VARIANTS: [(u32, u32); 3] = [(1, 0), (1, 1), (0, 0)];

/// Compiles the kernel behind `emulation/block.hpp`, with `CXX` or `c++`, and compares it with sums in f64.
pub(crate) fn emulate() -> Result<()> {
    let source = root().join("crates/moetrace-cuda/emulation/grouped_product_mma.cpp");
    let work = target_dir().join("emulation");
    std::fs::create_dir_all(&work)?;
    for (gated, gathered) in VARIANTS {
        let program = work.join(format!("grouped_product_mma_{gated}{gathered}"));
        let mut compile = Command::new(std::env::var_os("CXX").unwrap_or_else(|| "c++".into()));
        compile.args(["-std=c++20", "-O2", "-Wall", "-Wno-unknown-pragmas"]);
        compile.args([format!("-DGATED={gated}"), format!("-DGATHERED={gathered}")]);
        run(compile.arg("-o").arg(&program).arg(&source))?;
        run(&mut Command::new(&program))?;
    }
    Ok(())
}
