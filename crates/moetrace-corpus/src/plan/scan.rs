//! The first reading: filter every row, drop repeated texts, choose rows by seed.

use std::collections::{BinaryHeap, HashSet};
use std::ops::ControlFlow;

use super::SourceFile;
use super::admit::Admission;
use crate::error::printable;
use crate::fingerprint;
use crate::read::{BadRow, ChosenColumns, DataFile, read_rows};
use crate::{CorpusError, CorpusEvent, SkipCounts, SkipReason, SkippedRow};

/// Rows between two events.
const EVENT_ROWS: u64 = 1 << 14;

/// Faulty rows that are reported one by one.
const EXAMPLES: usize = 20;

/// What the first reading found.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) rows: u64,
    pub(crate) usable: u64,
    pub(crate) columns: Option<ChosenColumns>,
    pub(crate) skips: Skips,
    pub(crate) notes: Vec<String>,
    /// The chosen rows in plan order.
    pub(crate) chosen: Vec<Candidate>,
}

/// A usable row; the order is the plan's, by seed, then by row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Candidate {
    priority: u64,
    /// Row of the data set.
    pub(crate) id: u32,
    pub(crate) file: u32,
    /// Row of the file.
    pub(crate) row: u32,
    pub(crate) hash: [u8; 16],
}

/// Rows left out.
#[derive(Debug, Default)]
pub(crate) struct Skips {
    pub(crate) counts: SkipCounts,
    pub(crate) examples: Vec<SkippedRow>,
}

impl Skips {
    /// Counts a row, and keeps it if it is among the first faulty ones; an error where no fault is allowed.
    pub(crate) fn add(
        &mut self,
        file: &DataFile,
        line: u64,
        why: BadRow,
        strict: bool,
    ) -> Result<(), CorpusError> {
        let BadRow { reason, detail } = why;
        self.counts.add(reason);
        if strict && reason.is_fault() {
            return Err(CorpusError::Row { path: file.path.clone(), line, reason, detail });
        }
        if reason.is_fault() && self.examples.len() < EXAMPLES {
            self.examples.push(SkippedRow { file: printable(&file.shown), line, reason, detail });
        }
        Ok(())
    }
}

/// Reads all files and keeps the `quota` rows that come first by seed.
pub(crate) fn scan(
    admission: &Admission<'_>,
    files: &[(DataFile, SourceFile)],
    quota: usize,
    on_event: &mut dyn FnMut(CorpusEvent),
) -> Result<Outcome, CorpusError> {
    let settings = admission.settings;
    let dataset = &admission.dataset;
    let mut outcome = Outcome::default();
    let mut texts: HashSet<[u8; 16]> = HashSet::new();
    let mut first_by_seed = BinaryHeap::new();
    for (index, (file, _)) in files.iter().enumerate().filter(|(_, (_, about))| about.read) {
        let before = outcome.rows;
        let end = read_rows(file, admission.wanted(), &mut |row| {
            let id = u32::try_from(outcome.rows).ok().filter(|&id| id < u32::MAX);
            let id = id.ok_or_else(|| CorpusError::TooManyRows {
                dataset: dataset.to_string(),
                limit: u64::from(u32::MAX),
            })?;
            outcome.rows += 1;
            if outcome.rows.is_multiple_of(EVENT_ROWS) {
                on_event(CorpusEvent::Scanned { dataset: dataset.clone(), rows: outcome.rows });
            }
            let admitted = admission.judge(row.content)?.and_then(|admitted| {
                let repeated = || BadRow::new(SkipReason::Duplicate, "the text of an earlier row");
                texts.insert(admitted.hash).then_some(admitted.hash).ok_or_else(repeated)
            });
            match admitted {
                Err(why) => outcome.skips.add(file, row.line, why, settings.strict)?,
                Ok(hash) => {
                    outcome.usable += 1;
                    let priority = fingerprint::priority(settings.seed, dataset, &id.to_le_bytes());
                    let row = id - before as u32;
                    keep_first(
                        &mut first_by_seed,
                        Candidate { priority, id, file: index as u32, row, hash },
                        quota,
                    );
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        if let Some(note) = end.note {
            if settings.strict {
                return Err(CorpusError::damaged(&file.path, note));
            }
            outcome.notes.push(format!("{}: {note}", printable(&file.shown)));
        }
        outcome.columns = outcome.columns.or(end.columns);
    }
    on_event(CorpusEvent::Scanned { dataset: dataset.clone(), rows: outcome.rows });
    outcome.chosen = first_by_seed.into_sorted_vec();
    Ok(outcome)
}

/// Keeps the `quota` smallest.
fn keep_first(heap: &mut BinaryHeap<Candidate>, candidate: Candidate, quota: usize) {
    if heap.len() < quota {
        heap.push(candidate);
    } else if let Some(mut last) = heap.peek_mut()
        && candidate < *last
    {
        *last = candidate;
    }
}
