//! `moetrace synth`: a random checkpoint with the shapes of a config.json.

use std::path::{Path, PathBuf};

use moetrace_model::synthetic::{SyntheticSettings, write_folder};
use moetrace_model::{ElementType, files_beside};
use serde_json::Value;

use super::quantize::as_json;
use crate::args::{PrecisionArg, SynthArgs};
use crate::failure::{Failure, code};
use crate::output;
use crate::progress::Written;
use crate::quantisation::{on_threads, quantisation};
use crate::show;

/// Writes the checkpoint and prints what it is.
pub(crate) fn synth(args: &SynthArgs) -> Result<u8, Failure> {
    let is_folder = args.like.is_dir();
    let path = if is_folder { args.like.join("config.json") } else { args.like.clone() };
    let beside: Vec<PathBuf> = if is_folder { files_beside(&args.like)? } else { Vec::new() };
    let config = read(&path)?;
    let (element, four_bit) = match args.precision {
        PrecisionArg::Nf4 => (ElementType::Bf16, true),
        PrecisionArg::Bf16 => (ElementType::Bf16, false),
        PrecisionArg::F16 => (ElementType::F16, false),
        PrecisionArg::F32 => (ElementType::F32, false),
    };
    let quantisation = if four_bit { Some(quantisation(&args.quantisation)?) } else { None };
    let settings = SyntheticSettings { seed: args.seed, element, quantisation, fused_experts: false };
    let mut progress = Written::new(args.quiet);
    let written = on_threads(args.threads, || {
        write_folder(&args.out, &config, &settings, &beside, &mut |event| progress.event(&event))
    })??;
    let out = written.dir.display().to_string();
    if args.json {
        output::print_json(&as_json(&written))?;
    } else if !args.quiet {
        output::print(&format!(
            "{} tensors ({} in 4 bits), {} in {} files, {out}\n",
            written.tensors,
            written.quantised,
            show::bytes(written.bytes),
            written.files
        ))?;
        output::print(&format!("next: {} inspect {}\n", show::quoted(&show::program()), show::quoted(&out)))?;
    }
    Ok(0)
}

fn read(path: &Path) -> Result<Value, Failure> {
    let text = std::fs::read(path).map_err(|error| {
        let what = format!("cannot read {}: {error}", path.display());
        Failure::new(
            code::NO_INPUT,
            "E-CONFIG",
            what,
            "name a config.json or a folder with one: --like CONFIG",
        )
    })?;
    serde_json::from_slice(&text).map_err(|error| {
        let what = format!("{} is not valid JSON: {error}", path.display());
        Failure::new(
            code::BAD_INPUT,
            "E-CONFIG",
            what,
            "name a config.json or a folder with one: --like CONFIG",
        )
    })
}
