//! Arguments of `import` and `export`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{Weights, length, positive, threads};

/// Arguments of `import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// Data sets: NAME=PATH or PATH, a folder or a file as the layout has it
    #[arg(value_name = "NAME=PATH", required = true)]
    pub(crate) sources: Vec<String>,
    /// How the files are laid out
    #[arg(long, value_enum)]
    pub(crate) layout: ImportLayoutArg,
    /// Run folder to be made
    #[arg(long, value_name = "RUN")]
    pub(crate) out: PathBuf,
    /// Start over: an older run folder is kept as RUN.bak
    #[arg(long)]
    pub(crate) fresh: bool,
    /// Do damaged shards again
    #[arg(long, conflicts_with = "fresh")]
    pub(crate) repair: bool,
    /// What the model is called
    #[arg(long, value_name = "NAME", default_value = "unnamed")]
    pub(crate) model_name: String,
    /// Routed experts of a layer, where the files do not say it
    #[arg(long, value_name = "E", value_parser = positive())]
    pub(crate) experts: Option<usize>,
    /// Experts chosen for a token, where the files do not say it
    #[arg(long, value_name = "K", value_parser = positive())]
    pub(crate) experts_per_token: Option<usize>,
    /// The model's own numbers of the layers in an array, as 1-27 or 0,2,4; of an array with more layers these are taken
    #[arg(long, value_name = "LAYERS", value_parser = layers)]
    pub(crate) layers: Option<LayerNumbers>,
    /// Rows that make a text, where the files have no boundaries between texts
    #[arg(long, value_name = "N", value_parser = length())]
    pub(crate) text_tokens: Option<usize>,
    /// f32: weights as they are; f16: as Float32 with 10 bits of mantissa
    #[arg(long, value_enum, default_value_t = Weights::F32)]
    pub(crate) weights: Weights,
    /// Most tokens in a shard
    #[arg(long, value_name = "N", default_value_t = 262_144, value_parser = positive())]
    pub(crate) shard_tokens: usize,
    /// Threads [default: the machine's]
    #[arg(long, value_name = "N", env = "MOETRACE_THREADS", value_parser = threads())]
    pub(crate) threads: Option<usize>,
    /// Print the result as JSON on standard output
    #[arg(long)]
    pub(crate) json: bool,
    /// No progress and no summary; errors are still printed
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

/// Arguments of `export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Run folder
    pub(crate) run: PathBuf,
    /// How the files are laid out
    #[arg(long, value_enum)]
    pub(crate) layout: ExportLayoutArg,
    /// Folder to be written; it must not exist
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Print the result as JSON on standard output
    #[arg(long)]
    pub(crate) json: bool,
    /// No summary; errors are still printed
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

/// Layouts to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportLayoutArg {
    /// Parquet, a row for each token and layer.
    Long,
    /// JSON lines, an object for each text.
    Jsonl,
    /// JSON lines with `routed_experts` as `SGLang` returns them.
    Sglang,
    /// FLAME-MoE-Traces: Parquet, a file for each layer.
    Flame,
}

/// Foreign layouts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ImportLayoutArg {
    /// ESFT: a folder of `expert_weights_LAYER.txt`.
    Esft,
    /// FLAME-MoE-Traces: a capture, or its `actives/iter_N`.
    Flame,
    /// Arrays `[tokens, layers, K]`: a `.npy` file or a folder of them.
    Npy,
}

/// Layers by number, ascending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LayerNumbers(pub(crate) Vec<u16>);

/// `1-27`, `0,2,4`, or both.
fn layers(text: &str) -> Result<LayerNumbers, String> {
    let number = |text: &str| text.trim().parse::<u16>().map_err(|error| format!("{text:?}: {error}"));
    let mut numbers = Vec::new();
    for part in text.split(',') {
        match part.split_once('-') {
            Some((from, to)) => numbers.extend(number(from)?..=number(to)?),
            None => numbers.push(number(part)?),
        }
    }
    if numbers.is_empty() || !numbers.is_sorted_by(|a, b| a < b) {
        return Err("expected ascending numbers, as 1-27 or 0,2,4".to_owned());
    }
    Ok(LayerNumbers(numbers))
}
