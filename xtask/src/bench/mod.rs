//! `cargo xtask bench`: the GPU bench and its peers, and the document of what they measured.

mod package;
mod render;
mod results;

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

pub(crate) use self::package::package;
use self::results::Results;
use crate::{cargo, root, target_dir};

/// What stands before the fields of a result, in what the bench prints and in `results.txt`.
const PREFIX: &str = "moetrace-bench\t";

/// What was asked for.
#[derive(Default)]
struct Asked {
    model: Option<PathBuf>,
    tier: Option<String>,
    peers: Vec<(String, String)>,
    from: Option<PathBuf>,
    out: Option<PathBuf>,
    date: Option<String>,
}

/// Runs the bench and the peers, or takes what they printed elsewhere, and writes the document.
pub(crate) fn bench(args: &[String]) -> Result<()> {
    let asked = Asked::parse(args)?;
    let text = match &asked.from {
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?,
        None => measured(&asked)?,
    };
    let mut results = Results::parse(&text)?;
    if let Some(date) = asked.date {
        results.facts.insert("date".into(), date);
    }
    let gpu = results.facts.get("gpu").context("no GPU was measured")?;
    let out = asked.out.unwrap_or_else(|| root().join("docs/benchmarks").join(file_name(gpu)));
    if let Some(folder) = out.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&out, render::document(&results))?;
    println!("{}", out.display());
    Ok(())
}

impl Asked {
    fn parse(args: &[String]) -> Result<Self> {
        let mut asked = Self::default();
        let mut args = args.iter();
        while let Some(flag) = args.next() {
            let mut value =
                || -> Result<&String> { args.next().with_context(|| format!("{flag} needs a value")) };
            match flag.as_str() {
                "--model" => asked.model = Some(value()?.into()),
                "--tier" => asked.tier = Some(value()?.clone()),
                "--from" => asked.from = Some(value()?.into()),
                "--out" => asked.out = Some(value()?.into()),
                "--date" => asked.date = Some(value()?.clone()),
                "--peer" => {
                    let (name, command) = value()?.split_once('=').context("--peer needs NAME=COMMAND")?;
                    asked.peers.push((name.to_owned(), command.to_owned()));
                }
                other => bail!(
                    "no flag is called {other:?}; there are --model, --tier, --peer, --from, --out and --date"
                ),
            }
        }
        let measures = asked.model.is_some() || asked.tier.is_some() || !asked.peers.is_empty();
        ensure!(
            asked.from.is_none() || !measures,
            "--from measures nothing: no --model, --tier or --peer beside it"
        );
        Ok(asked)
    }
}

/// Everything that bench and peers print; kept in a file too, since a document may be wanted again.
fn measured(asked: &Asked) -> Result<String> {
    let mut text = provenance()?;
    let mut bench = cargo();
    bench.args(["bench", "--workspace", "--bench", "gpu"]).env("MOETRACE_TEST_CUDA", "1");
    if let Some(model) = &asked.model {
        let whole = model.canonicalize().with_context(|| format!("looking for {}", model.display()))?;
        bench.env("MOETRACE_BENCH_MODEL", whole);
    }
    if let Some(tier) = &asked.tier {
        bench.env("MOETRACE_TIER", tier);
    }
    hear(&mut bench, &mut text)?;
    for (name, command) in &asked.peers {
        println!("peer {name}: {command}");
        // A peer that fails takes nothing from what has been measured.
        if let Err(error) = hear(Command::new("sh").args(["-c", command]), &mut text) {
            let _ = writeln!(text, "{PREFIX}skipped\tpeer {name}\t{error:#}");
        }
    }
    let kept = target_dir().join("bench/results.txt");
    if let Some(folder) = kept.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&kept, &text).with_context(|| format!("writing {}", kept.display()))?;
    println!("kept in {}", kept.display());
    Ok(text)
}

/// The lines that say what is measured: the commit and its day.
fn provenance() -> Result<String> {
    let git = |args: &[&str]| -> Result<String> {
        let output = Command::new("git").current_dir(root()).args(args).output()?;
        ensure!(output.status.success(), "git {args:?} ended with {}", output.status);
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["log", "-1", "--format=%h"])?;
    let changed =
        if git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty() { "" } else { ", changed" };
    let date = git(&["log", "-1", "--format=%cs"])?;
    Ok(format!("{PREFIX}commit\t{commit}{changed}\n{PREFIX}date\t{date}\n"))
}

/// Runs a command, shows what it prints, and appends that to `text`.
fn hear(command: &mut Command, text: &mut String) -> Result<()> {
    let words = format!("{command:?}");
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot run {words}"))?;
    if let Some(out) = child.stdout.take() {
        for line in BufReader::new(out).split(b'\n') {
            let line = line?;
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            text.push_str(&line);
            text.push('\n');
        }
    }
    let status = child.wait()?;
    ensure!(status.success(), "{words} ended with {status}");
    Ok(())
}

/// `NVIDIA H100 80GB HBM3` to `nvidia-h100-80gb-hbm3.md`.
fn file_name(gpu: &str) -> PathBuf {
    let letters: String =
        gpu.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { ' ' }).collect();
    let words: Vec<&str> = letters.split_whitespace().collect();
    Path::new(&words.join("-")).with_extension("md")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_called_after_its_gpu() {
        assert_eq!(file_name("NVIDIA H100 80GB HBM3"), Path::new("nvidia-h100-80gb-hbm3.md"));
        assert_eq!(file_name("NVIDIA GeForce RTX 3090"), Path::new("nvidia-geforce-rtx-3090.md"));
    }

    #[test]
    fn a_document_of_another_machine_measures_nothing_here() {
        let asked = |args: &[&str]| Asked::parse(&args.iter().map(|&a| a.to_owned()).collect::<Vec<_>>());
        assert!(asked(&["--from", "results.txt", "--date", "2026-01-01"]).is_ok());
        assert!(asked(&["--from", "results.txt", "--model", "m"]).is_err());
        assert!(asked(&["--peer", "no command"]).is_err());
        assert!(asked(&["--out"]).is_err());
        let peers = asked(&["--peer", "torch=PEER_BATCHES=8x512 python peer.py"]).map(|asked| asked.peers);
        assert_eq!(peers.unwrap(), [("torch".to_owned(), "PEER_BATCHES=8x512 python peer.py".to_owned())]);
    }
}
