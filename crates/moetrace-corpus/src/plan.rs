//! From sources to the list of samples that a run will trace.

mod admit;
mod files;
mod needed;
mod scan;
mod select;

use std::path::PathBuf;

use moetrace_routing::Name;
use serde::Serialize;

use crate::read::DataFile;
use crate::{
    CorpusError, CorpusEvent, CorpusSettings, Sample, SkipCounts, SkippedRow, SourceSpec, TextTokenizer,
};
use admit::Admission;

pub use needed::files_needed;

/// The samples of all data sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorpusPlan {
    /// In the order of the sources.
    pub datasets: Vec<DatasetPlan>,
}

/// The samples of one data set, and what became of its other rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetPlan {
    /// Its name.
    pub name: Name,
    /// The file or folder it was read from, as given.
    pub root: PathBuf,
    /// Its data files in name order.
    pub files: Vec<SourceFile>,
    /// The column the texts came from, in the first file that has rows.
    pub column: String,
    /// The column the labels came from there.
    pub label_column: Option<String>,
    /// Rows of the files read, faulty ones included.
    pub rows_seen: u64,
    /// Different texts that passed every filter.
    pub usable: u64,
    /// Samples wanted. Fewer usable texts than that are all taken; no other data set makes up for them.
    pub quota: usize,
    /// Rows left out, by reason. Texts that only the tokenizer fails on are counted where they were chosen.
    pub skipped: SkipCounts,
    /// The first faulty rows, at most 20.
    pub examples: Vec<SkippedRow>,
    /// What is odd about its files though no row of them was lost: links that lead nowhere, Arrow streams
    /// without the mark that ends them. A strict plan refuses these.
    pub notes: Vec<String>,
    /// The samples in plan order: seeded, so that a larger quota only appends.
    pub samples: Vec<Sample>,
}

impl DatasetPlan {
    /// How many samples fewer there are than wanted.
    pub fn shortfall(&self) -> usize {
        self.quota - self.samples.len().min(self.quota)
    }

    /// N summed over the samples.
    pub fn tokens(&self) -> u64 {
        self.samples.iter().map(|s| s.tokens.len() as u64).sum()
    }
}

/// One data file of a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SourceFile {
    /// Relative to the source, or the file's name if the source is one file.
    pub path: String,
    /// Size on disk.
    pub bytes: u64,
    /// BLAKE3 in hex; empty if the file was not read.
    pub blake3: String,
    /// Whether it was read; beyond the file budget a seeded choice is.
    pub read: bool,
}

/// Reads every source and chooses its samples.
///
/// Each data set is read twice, row by row: once to filter, drop repeated texts and choose rows, once to tokenise
/// the chosen ones. Besides those, 16 bytes are kept for each different text. The samples of a data set depend on
/// its files, name, seed, filters and tokenizer alone, and those for a smaller quota are a prefix of those for
/// a larger one. A data set whose quota is 0 is not read.
///
/// # Errors
/// [`CorpusError`] for settings and names out of range, files that cannot be read or are damaged, a column that is
/// not there, a data set without a usable text, and with `strict` the first faulty row.
pub fn plan(
    sources: &[SourceSpec],
    tokenizer: Option<&TextTokenizer>,
    settings: &CorpusSettings,
    on_event: &mut dyn FnMut(CorpusEvent),
) -> Result<CorpusPlan, CorpusError> {
    settings.check()?;
    if sources.is_empty() {
        return Err(CorpusError::NoSources);
    }
    SourceSpec::check_names(sources.iter().map(|source| source.name.as_str()))?;
    let mut datasets = Vec::with_capacity(sources.len());
    for (i, source) in sources.iter().enumerate() {
        let quota = settings.quota(i, sources.len());
        datasets.push(plan_dataset(source, tokenizer, settings, quota, on_event)?);
    }
    Ok(CorpusPlan { datasets })
}

fn plan_dataset(
    source: &SourceSpec,
    tokenizer: Option<&TextTokenizer>,
    settings: &CorpusSettings,
    quota: usize,
    on_event: &mut dyn FnMut(CorpusEvent),
) -> Result<DatasetPlan, CorpusError> {
    let name: Name = source.name.as_str().into();
    let (mut data, mut notes) = files::choose(source, settings, quota)?;
    let files: Vec<&DataFile> = data.iter().filter(|(_, about)| about.read).map(|(file, _)| file).collect();
    let bytes = files.iter().map(|file| file.bytes).sum();
    on_event(CorpusEvent::Opened { dataset: name.clone(), files: files.len(), bytes });
    let admission = Admission { dataset: name.clone(), source, tokenizer, settings };
    let mut outcome = scan::Outcome::default();
    let mut samples = Vec::new();
    if quota > 0 {
        files::fingerprint(&mut data)?;
        outcome = scan::scan(&admission, &data, quota, on_event)?;
        samples = select::tokenize(&admission, &data, &mut outcome, on_event)?;
        if samples.is_empty() {
            return Err(CorpusError::NothingUsable {
                dataset: source.name.clone(),
                rows: outcome.rows,
                skipped: outcome.skips.counts,
                examples: outcome.skips.examples,
            });
        }
    }
    let columns = outcome.columns;
    notes.append(&mut outcome.notes);
    Ok(DatasetPlan {
        name,
        root: source.path.clone(),
        files: data.into_iter().map(|(_, about)| about).collect(),
        label_column: columns.as_ref().and_then(|c| c.label.clone()),
        column: columns.map(|c| c.text).or_else(|| source.column.clone()).unwrap_or_default(),
        rows_seen: outcome.rows,
        usable: outcome.usable,
        quota,
        skipped: outcome.skips.counts,
        examples: outcome.skips.examples,
        notes,
        samples,
    })
}
