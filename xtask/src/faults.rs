//! `cargo xtask faults`: kill a run at random moments, resume it, and compare it with an unbroken one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{debug_program, root, run, sha256, target_dir};

/// Shards small enough that a run has dozens, so that a kill falls into every step of some commit.
const RUN: [&str; 6] = ["--traces", "72", "--shard-tokens", "512", "--tokens-per-pass", "256"];

/// Kills `args[0]` times (default 50) over as many runs as that takes.
pub(crate) fn faults(args: &[String]) -> Result<()> {
    let kills: usize = args.first().map_or(Ok(50), |n| n.parse()).context("expected a number of kills")?;
    let program = debug_program()?;
    let work = target_dir().join("faults");
    let _ = std::fs::remove_dir_all(&work);
    std::fs::create_dir_all(&work)?;

    // A copy, so that a build meanwhile does not change what is tested.
    let copy = work.join("moetrace");
    std::fs::copy(&program, &copy)?;
    let program = copy;

    let unbroken = work.join("unbroken");
    let begun = Instant::now();
    run(&mut collect(&program, &unbroken))?;
    let whole = begun.elapsed();
    let expected = files(&unbroken)?;

    let mut random = SplitMix(0x6d6f_6574_7261_6365);
    let (mut killed, mut runs) = (0, 0);
    while killed < kills {
        let out = work.join(format!("broken-{runs}"));
        loop {
            let mut child = collect(&program, &out).spawn()?;
            let wait = whole.mul_f64(random.unit());
            let died = killed < kills && !ends_within(&mut child, wait)?;
            if died {
                child.kill()?;
                child.wait()?;
                killed += 1;
                continue;
            }
            let status = child.wait()?;
            if !status.success() {
                bail!("resuming {} ended with {status} after {killed} kills", out.display());
            }
            break;
        }
        let found = files(&out)?;
        ensure!(
            found == expected,
            "{} differs from the unbroken run: {}",
            out.display(),
            first(&found, &expected)
        );
        std::fs::remove_dir_all(&out)?;
        runs += 1;
    }
    println!("kills={killed} runs={runs} files={} lost=0 duplicated=0 manual=0", expected.len());
    Ok(())
}

fn collect(program: &Path, out: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(["collect", "--quiet", "--out"]).arg(out).args(RUN);
    command.current_dir(root()).stdout(Stdio::null());
    command
}

fn ends_within(child: &mut std::process::Child, wait: Duration) -> Result<bool> {
    let until = Instant::now() + wait;
    while Instant::now() < until {
        if child.try_wait()?.is_some() {
            return Ok(true);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(child.try_wait()?.is_some())
}

/// Hash of every data and samples file; other files may hold what differs by right.
fn files(run: &Path) -> Result<BTreeMap<PathBuf, String>> {
    let mut found = BTreeMap::new();
    for folder in ["data", "samples"] {
        for entry in std::fs::read_dir(run.join(folder))? {
            let path = entry?.path();
            let hash = sha256(&std::fs::read(&path)?);
            found.insert(path.strip_prefix(run)?.to_owned(), hash);
        }
    }
    ensure!(!found.is_empty(), "{} holds no files", run.display());
    Ok(found)
}

fn first(found: &BTreeMap<PathBuf, String>, expected: &BTreeMap<PathBuf, String>) -> String {
    let all = found.keys().chain(expected.keys());
    let differs = all.into_iter().find(|k| found.get(*k) != expected.get(*k));
    differs.map_or_else(String::new, |path| path.display().to_string())
}

/// A small generator (Steele, Lea and Flood 2014); the seed is fixed so that a failure can be repeated.
struct SplitMix(u64);

impl SplitMix {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}
