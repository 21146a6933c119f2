//! Arguments of the commands that read runs.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::threads;

/// Arguments of `status` and `verify`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Run folder.
    pub(crate) run: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `metrics`.
#[derive(Debug, Args)]
pub(crate) struct MetricsArgs {
    /// Run folders; of several, one line each is printed, side by side
    #[arg(value_name = "RUN", required = true)]
    pub(crate) runs: Vec<PathBuf>,
    /// Print also what experts tell about the data set, the label or the position in the text; repeat it
    #[arg(long, value_enum, value_name = "GROUPS")]
    pub(crate) by: Vec<GroupByArg>,
    /// Count only what `collect` counts: no pairs and sets, locality, affinity, segments, groups, tokens
    #[arg(long, conflicts_with_all = ["by", "parquet"])]
    pub(crate) core: bool,
    /// Count loads, pairs and transitions to the next token, as integers, and nothing else: only the columns of experts
    /// are read
    #[arg(long, conflicts_with_all = ["by", "core"])]
    pub(crate) counts: bool,
    /// Print the experts that ESFT would train, as the JSON that its training reads: of each layer the fewest whose scores
    /// reach this part of their sum
    #[arg(long, value_name = "PART", value_parser = part, conflicts_with_all = ["by", "parquet", "counts"])]
    pub(crate) esft: Option<f64>,
    /// The score of --esft: weights summed over tokens, or tokens counted
    #[arg(long, value_enum, value_name = "SCORE", default_value_t = EsftScoreArg::Gate, requires = "esft")]
    pub(crate) esft_score: EsftScoreArg,
    /// Count beginning-of-sequence tokens too; they route like outliers
    #[arg(long)]
    pub(crate) include_bos: bool,
    /// Compare sizes only, and do not hash every file first
    #[arg(long)]
    pub(crate) trust: bool,
    /// Threads that count [default: the machine's]
    #[arg(long, value_name = "N", env = "MOETRACE_THREADS", value_parser = threads())]
    pub(crate) threads: Option<usize>,
    /// Write the numbers as flat tables too: experts.parquet, pairs.parquet and layers.parquet in this folder, and
    /// experts-by-….parquet for each --by; of --counts loads.parquet, pair-counts.parquet and transitions.parquet
    #[arg(long, value_name = "DIR")]
    pub(crate) parquet: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Scores of ESFT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EsftScoreArg {
    /// Mean weight over all tokens.
    Gate,
    /// Part of all choices.
    Token,
}

/// More than nothing, at most all.
fn part(text: &str) -> Result<f64, String> {
    let part: f64 = text.parse().map_err(|_| "expected a number above 0 and at most 1".to_owned())?;
    let fits = part > 0.0 && part <= 1.0;
    fits.then_some(part).ok_or_else(|| "expected a number above 0 and at most 1".to_owned())
}

/// What tokens are grouped by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GroupByArg {
    /// The data set.
    Dataset,
    /// Data set and label.
    Label,
    /// Position in the text.
    Position,
}

/// Arguments of `compare`.
#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// Run folder of the reference: ties and margins are its.
    #[arg(value_name = "A")]
    pub(crate) reference: PathBuf,
    /// Run folder of the other one: same texts, same tokenizer, another precision or other weights.
    #[arg(value_name = "B")]
    pub(crate) other: PathBuf,
    /// Compare beginning-of-sequence tokens too; they route like outliers.
    #[arg(long)]
    pub(crate) include_bos: bool,
    /// Compare sizes only, and do not hash every file first.
    #[arg(long)]
    pub(crate) trust: bool,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `report`.
#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// Run folder.
    pub(crate) run: PathBuf,
    /// A second run to hold beside it; over the same tokens it is compared token by token too
    #[arg(requires = "out")]
    pub(crate) other: Option<PathBuf>,
    /// The page [default: RUN/report.html]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Write every chart into this folder too, as SVG and PNG
    #[arg(long, value_name = "DIR")]
    pub(crate) figures: Option<PathBuf>,
    /// Count beginning-of-sequence tokens too; they route like outliers.
    #[arg(long)]
    pub(crate) include_bos: bool,
    /// Compare sizes only, and do not hash every file first.
    #[arg(long)]
    pub(crate) trust: bool,
}

/// Arguments of `inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Run folder or checkpoint folder.
    pub(crate) path: PathBuf,
    /// Rows to show.
    #[arg(long, default_value_t = 5)]
    pub(crate) rows: usize,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}
