//! The command line as clap reads it. Names are fixed in the design and never change their meaning.

mod exchange;
mod runs;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use moetrace_model::{BlockSize, PRESETS, Preset};
use moetrace_run::ShardRange;

pub(crate) use self::exchange::{ExportArgs, ExportLayoutArg, ImportArgs, ImportLayoutArg};
pub(crate) use self::runs::{
    CompareArgs, EsftScoreArg, GroupByArg, InspectArgs, MetricsArgs, ReportArgs, RunArgs,
};
use crate::device::{DeviceArg, MemoryLimits, device_arg, memory_limits};

/// Records which experts a mixture-of-experts language model routes every token to.
#[derive(Debug, Parser)]
#[command(name = "moetrace", version, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a model over texts and record its routing; the same command again continues
    Collect(Box<CollectArgs>),
    /// Say what a collect would do, and write nothing
    Plan(Box<PlanArgs>),
    /// Check that everything is here that a collect with these arguments needs, and say how to get what is not
    Doctor(Box<PlanArgs>),
    /// Say how far a run is
    Status(RunArgs),
    /// Count a run's routing: coverage, load, entropy, pairs, balance, specialisation
    Metrics(MetricsArgs),
    /// Measure how often run B routed like run A, over the same tokens
    Compare(CompareArgs),
    /// Read every file of a run and say what is wrong with it
    Verify(RunArgs),
    /// Write a run in a layout that other tools read
    Export(ExportArgs),
    /// Make a run of the routing that another tool recorded; a call cut short is continued
    Import(ImportArgs),
    /// Draw a run's numbers as one page, and as figures; with a second run, both side by side
    Report(ReportArgs),
    /// Show a run's provenance, columns and first rows, or a checkpoint's tensors
    Inspect(InspectArgs),
    /// Write a checkpoint anew in 4 bits (NF4), as bitsandbytes stores it; a call cut short is continued
    Quantize(QuantizeArgs),
    /// Write a random checkpoint with the shapes of a config.json, of any size
    Synth(SynthArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Arguments of `collect`, and of `plan` and `doctor` but for one.
#[derive(Debug, Clone, Args)]
#[command(next_line_help = true)]
pub(crate) struct CollectArgs {
    /// Checkpoint folder, or `OWNER/NAME[@REVISION]` of the Hugging Face Hub; without it, the small model that comes with
    /// moetrace
    #[arg(long, value_name = "MODEL", env = "MOETRACE_MODEL", help_heading = "What")]
    pub(crate) model: Option<PathBuf>,
    /// Texts: `NAME=PATH[:COLUMN]`, a file or a folder; imdb, `ag_news` and others of the Hub by name, or six as guide;
    /// `hf://datasets/OWNER/NAME[/CONFIG][/SPLIT][:COLUMN]`; repeat it; without it, the six that come with moetrace
    #[arg(long, value_name = "DATASET", env = "MOETRACE_DATASET", value_delimiter = None, help_heading = "What")]
    pub(crate) dataset: Vec<String>,
    /// Texts to record, shared equally among the data sets
    #[arg(long, value_name = "N", env = "MOETRACE_TRACES", default_value_t = 20_000,
          value_parser = positive(), help_heading = "What")]
    pub(crate) traces: usize,
    /// Most tokens of one text, BOS included; longer ones are cut and counted [default: that of --preset, 512]
    #[arg(long, value_name = "N", env = "MOETRACE_MAX_LENGTH", value_parser = length(), help_heading = "What")]
    pub(crate) max_length: Option<usize>,
    /// A text must have more characters than this after trimming
    #[arg(long, value_name = "N", env = "MOETRACE_MIN_CHARS", default_value_t = 50, help_heading = "What")]
    pub(crate) min_chars: usize,
    /// Decides which texts are taken, and in which order
    #[arg(long, value_name = "N", env = "MOETRACE_SEED", default_value_t = 0, help_heading = "What")]
    pub(crate) seed: u64,
    /// A data set of more bytes than this is read in part: whole files, chosen by the seed; of the Hub as many as the texts
    /// need, and no others are downloaded
    #[arg(long, value_name = "SIZE", env = "MOETRACE_FILE_BUDGET", default_value = "2GB", value_parser = size,
          help_heading = "What")]
    pub(crate) file_budget: u64,
    /// Make an unusable source row an error; by default it is counted, reported and skipped
    #[arg(long, env = "MOETRACE_STRICT", value_parser = switch(), help_heading = "What")]
    pub(crate) strict: bool,
    /// Open no connection: what is named on the Hub comes from the cache, or is missed; so with `HF_HUB_OFFLINE=1`
    #[arg(long, env = "MOETRACE_OFFLINE", value_parser = switch(), help_heading = "What")]
    pub(crate) offline: bool,

    /// Run folder [default: runs/MODEL]
    #[arg(long, value_name = "RUN", env = "MOETRACE_OUT", help_heading = "Where")]
    pub(crate) out: Option<PathBuf>,
    /// Do only shards A to B, B excluded; several processes may share a run folder
    #[arg(long, value_name = "A..B", env = "MOETRACE_SHARDS", help_heading = "Where")]
    pub(crate) shards: Option<ShardRange>,
    /// Start over: an older run folder is kept as RUN.bak
    #[arg(long, help_heading = "Where")]
    pub(crate) fresh: bool,
    /// Do damaged shards again
    #[arg(long, conflicts_with = "fresh", help_heading = "Where")]
    pub(crate) repair: bool,

    /// Router logits of every expert as extra columns
    #[arg(long, env = "MOETRACE_ROUTER_LOGITS", value_parser = switch(), help_heading = "Columns")]
    pub(crate) router_logits: bool,
    /// Router input of N rows per shard as a table of its own
    #[arg(long, value_name = "N", env = "MOETRACE_HIDDEN", default_value_t = 0, help_heading = "Columns")]
    pub(crate) hidden: usize,
    /// Loss of every token; runs the last layer and the language-model head too
    #[arg(long, env = "MOETRACE_NLL", value_parser = switch(), help_heading = "Columns")]
    pub(crate) nll: bool,
    /// f16: weights as Float32 with 10 bits of mantissa; f32: unrounded
    #[arg(long, value_enum, env = "MOETRACE_WEIGHTS", default_value_t = Weights::F16, help_heading = "Columns")]
    pub(crate) weights: Weights,
    /// Leave out token ids and texts, so that traces cannot be turned back into text
    #[arg(long, env = "MOETRACE_NO_TOKENS", value_parser = switch(), help_heading = "Columns")]
    pub(crate) no_tokens: bool,
    /// Most tokens in a shard, the unit of work and of a file [default: 16384, on a GPU 262144]
    #[arg(long, value_name = "N", env = "MOETRACE_SHARD_TOKENS", value_parser = positive(), help_heading = "Columns")]
    pub(crate) shard_tokens: Option<usize>,

    /// What computes: auto, cpu, cuda or cuda:N; auto takes the GPU with most free memory if one can be used, else the
    /// processor
    #[arg(long, value_name = "DEVICE", env = "MOETRACE_DEVICE", default_value = "auto", value_parser = device_arg,
          help_heading = "How")]
    pub(crate) device: DeviceArg,
    /// Most memory a run takes of the GPU and of the host, as 20GB, 80%, 0=20GB or 0=20GB,cpu=16GB [default: that of the
    /// preset, and what the host has left]
    #[arg(long, value_name = "LIMITS", env = "MOETRACE_MAX_MEMORY", value_parser = memory_limits,
          help_heading = "How")]
    pub(crate) max_memory: Option<MemoryLimits>,
    /// Let every layer wait in host memory, not only those that do not fit onto the GPU
    #[arg(long, env = "MOETRACE_CPU_OFFLOAD", value_parser = switch(), help_heading = "How")]
    pub(crate) cpu_offload: bool,
    /// Where layers live: auto, cpu, cuda, or JSON as transformers writes it, {"model.layers.0": "cpu"} or a file with it
    #[arg(long, value_name = "MAP", env = "MOETRACE_DEVICE_MAP", help_heading = "How")]
    pub(crate) device_map: Option<String>,
    /// Memory limit and text length of a kind of GPU [default: the limit of the GPU at hand, known by its name]
    #[arg(long, value_name = "NAME", env = "MOETRACE_PRESET", value_parser = preset(), help_heading = "How")]
    pub(crate) preset: Option<&'static Preset>,
    /// How weights are held [default: the checkpoint's]; nf4 quantises a dense checkpoint when it is loaded
    #[arg(long, value_enum, env = "MOETRACE_PRECISION", help_heading = "How")]
    pub(crate) precision: Option<PrecisionArg>,
    /// Type of activations with nf4 weights [default: bf16; other weights compute in their own type]
    #[arg(long, value_enum, env = "MOETRACE_COMPUTE_DTYPE", help_heading = "How")]
    pub(crate) compute_dtype: Option<ComputeDtypeArg>,
    #[command(flatten)]
    pub(crate) quantisation: QuantisationArgs,
    /// Keep what nf4 quantises on load in the cache, and take it from there the next time
    #[arg(long, env = "MOETRACE_CACHE_QUANTIZED", help_heading = "How")]
    pub(crate) cache_quantized: bool,
    /// model: the router rounds as the reference implementation does; f32: it does not round
    #[arg(long, value_enum, env = "MOETRACE_ROUTER_DTYPE", default_value_t = RouterDtypeArg::Model, help_heading = "How")]
    pub(crate) router_dtype: RouterDtypeArg,
    /// Texts of full length in one pass; sets --tokens-per-pass to N times --max-length
    #[arg(long, value_name = "SEQUENCES", env = "MOETRACE_BATCH_SIZE", value_parser = positive(),
          help_heading = "How")]
    pub(crate) batch_size: Option<usize>,
    /// Most tokens in one pass; changes speed and memory, never a result [default: 4096; on a GPU what memory allows]
    #[arg(long, value_name = "N", env = "MOETRACE_TOKENS_PER_PASS", value_parser = positive(), help_heading = "How")]
    pub(crate) tokens_per_pass: Option<usize>,
    /// Threads [default: the machine's]
    #[arg(long, value_name = "N", env = "MOETRACE_THREADS", value_parser = threads(), help_heading = "How")]
    pub(crate) threads: Option<usize>,
    /// Read weights with plain reads; for network file systems
    #[arg(long, env = "MOETRACE_NO_MMAP", value_parser = switch(), help_heading = "How")]
    pub(crate) no_mmap: bool,
    /// Settings from a TOML file, keys as the long flags; flags and environment win
    #[arg(long, value_name = "FILE", env = "MOETRACE_CONFIG", help_heading = "How")]
    pub(crate) config: Option<PathBuf>,

    /// Make no page, report.html, of a run that is complete: it takes reading the run once more
    #[arg(long, env = "MOETRACE_NO_REPORT", value_parser = switch(), help_heading = "Output")]
    pub(crate) no_report: bool,
    /// Print the result as JSON on standard output
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
    /// No progress and no summary; errors are still printed
    #[arg(long, short, help_heading = "Output")]
    pub(crate) quiet: bool,
}

/// Arguments of `plan` and `doctor`: those of `collect`, and one.
#[derive(Debug, Clone, Args)]
#[command(next_line_help = true)]
pub(crate) struct PlanArgs {
    /// What `collect` would be given.
    #[command(flatten)]
    pub(crate) collect: CollectArgs,
    /// Plan for a GPU of this kind, which need not be here, whatever --device says
    #[arg(long, value_name = "NAME", value_parser = preset(), help_heading = "How")]
    pub(crate) gpu: Option<&'static Preset>,
}

/// How weights are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PrecisionArg {
    /// 4 bits in projections, the checkpoint's own type elsewhere.
    Nf4,
    /// Products of bf16 values in f32, rounded to bf16 where the reference implementation rounds.
    Bf16,
    /// The same in half precision.
    F16,
    /// Single precision.
    F32,
}

/// Type of activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ComputeDtypeArg {
    /// Rounded to bf16 where the reference implementation rounds.
    Bf16,
    /// The same in half precision.
    F16,
    /// Single precision.
    F32,
}

/// How weights are quantised; of no effect on a checkpoint that is in 4 bits already.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct QuantisationArgs {
    /// Weights that share a scale: 32, 64, 128 and so on to 4096
    #[arg(long, value_name = "N", env = "MOETRACE_BLOCK_SIZE", default_value_t = 64,
          value_parser = block_size, help_heading = "4 bits")]
    pub(crate) block_size: usize,
    /// Keep scales in f32 (4.5 bit a weight) instead of 8 bits (4.13)
    #[arg(long, env = "MOETRACE_NO_DOUBLE_QUANT", help_heading = "4 bits")]
    pub(crate) no_double_quant: bool,
    /// Quantise routers and shared-expert gates too, as transformers with bitsandbytes does
    #[arg(long, env = "MOETRACE_QUANTIZE_ROUTER", help_heading = "4 bits")]
    pub(crate) quantize_router: bool,
}

/// Arguments of `quantize`.
#[derive(Debug, Args)]
pub(crate) struct QuantizeArgs {
    /// Checkpoint folder, or `OWNER/NAME[@REVISION]` of the Hugging Face Hub.
    #[arg(value_name = "MODEL")]
    pub(crate) model: PathBuf,
    /// Open no connection: a model of the Hub comes from the cache, or is missed
    #[arg(long, env = "MOETRACE_OFFLINE", value_parser = switch())]
    pub(crate) offline: bool,
    /// Folder to be written; it must not exist
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) quantisation: QuantisationArgs,
    /// Bytes after which a new file is begun, as 5GB or 500MB
    #[arg(long, value_name = "SIZE", default_value = "5GB", value_parser = size)]
    pub(crate) shard_size: u64,
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

/// Arguments of `synth`.
#[derive(Debug, Args)]
pub(crate) struct SynthArgs {
    /// A config.json, or a folder with one, whose other small files (tokenizer) are copied
    #[arg(long, value_name = "CONFIG")]
    pub(crate) like: PathBuf,
    /// Folder to be written; it must not exist
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// How weights are stored
    #[arg(long, value_enum, default_value_t = PrecisionArg::Bf16)]
    pub(crate) precision: PrecisionArg,
    #[command(flatten)]
    pub(crate) quantisation: QuantisationArgs,
    /// Decides every weight
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
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

/// Precision of the router.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RouterDtypeArg {
    /// As the reference implementation.
    Model,
    /// Logits and softmax in f32.
    F32,
}

/// Rounding of the recorded weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Weights {
    /// Ten bits of mantissa.
    F16,
    /// As computed.
    F32,
}

/// A switch in the environment or in a file: `1`, `true`, `yes`, `on` and their opposites.
fn switch() -> clap::builder::BoolishValueParser {
    clap::builder::BoolishValueParser::new()
}

/// As many as an engine takes.
fn threads() -> impl clap::builder::TypedValueParser<Value = usize> {
    use clap::builder::TypedValueParser as _;
    clap::value_parser!(u64).range(1..=1024).map(usize_of)
}

fn positive() -> impl clap::builder::TypedValueParser<Value = usize> {
    use clap::builder::TypedValueParser as _;
    clap::value_parser!(u64).range(1..).map(usize_of)
}

/// Positions are recorded in 16 bits.
fn length() -> impl clap::builder::TypedValueParser<Value = usize> {
    use clap::builder::TypedValueParser as _;
    clap::value_parser!(u64).range(1..=65_535).map(usize_of)
}

/// A preset by its name.
fn preset() -> impl clap::builder::TypedValueParser<Value = &'static Preset> {
    use clap::builder::TypedValueParser as _;
    let names = PRESETS.iter().map(|preset| preset.name);
    // Whatever passes is one of the names.
    clap::builder::PossibleValuesParser::new(names)
        .try_map(|name| Preset::named(&name).ok_or("unknown preset"))
}

fn usize_of(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// What `BlockSize` accepts.
fn block_size(text: &str) -> Result<usize, String> {
    let elements = text.parse::<usize>().map_err(|error| error.to_string())?;
    BlockSize::new(elements).map(BlockSize::get).map_err(|error| error.to_string())
}

/// Bytes: a number with a decimal (GB) or binary (GiB) unit, which may have up to nine places behind a point, or a whole
/// one.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match &text[digits.len()..] {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        other => return Err(format!("unit {other}, expected B, kB, MB, GB, KiB, MiB or GiB")),
    };
    let (whole, places) = digits.trim().split_once('.').unwrap_or((digits.trim(), "0"));
    let of = |text: &str| text.parse::<u64>().map_err(|error| format!("{text:?}: {error}"));
    if unit == 1 && digits.contains('.') {
        return Err("expected a whole number of bytes, or a unit as in 2.5GB".to_owned());
    }
    if places.len() > 9 || !places.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("{:?}, expected a number with at most nine places", digits.trim()));
    }
    let behind = u128::from(of(places)?) * u128::from(unit) / 10u128.pow(places.len() as u32);
    let bytes = of(whole)?.checked_mul(unit).and_then(|bytes| bytes.checked_add(u64::try_from(behind).ok()?));
    bytes
        .filter(|&bytes| bytes > 0)
        .ok_or_else(|| "expected more than nothing, and no more than 16 EiB".to_owned())
}
