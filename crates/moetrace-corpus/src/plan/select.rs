//! The second reading: the chosen rows, tokenised in parallel.

use std::ops::ControlFlow;

use moetrace_routing::{Name, SampleId, TokenId};
use rayon::prelude::*;

use super::SourceFile;
use super::admit::{Admission, Body};
use super::scan::{Candidate, Outcome};
use crate::read::{BadRow, DataFile, read_rows};
use crate::{CorpusError, CorpusEvent, Sample, SkipReason};

/// Texts tokenised at once: enough for many cores.
const BATCH_ROWS: usize = 1024;

/// Bytes of texts tokenised at once, so that long texts do not fill the memory.
const BATCH_BYTES: usize = 32 << 20;

/// A chosen row with its text, on its way to the tokenizer.
struct Pending {
    place: usize,
    candidate: Candidate,
    line: u64,
    label: Option<Name>,
    body: Body<'static>,
}

/// Tokenises the chosen rows; the samples come in plan order.
pub(crate) fn tokenize(
    admission: &Admission<'_>,
    files: &[(DataFile, SourceFile)],
    outcome: &mut Outcome,
    on_event: &mut dyn FnMut(CorpusEvent),
) -> Result<Vec<Sample>, CorpusError> {
    let of = outcome.chosen.len();
    let mut in_file_order: Vec<(usize, Candidate)> = outcome.chosen.drain(..).enumerate().collect();
    in_file_order.sort_by_key(|(_, candidate)| candidate.id);
    let mut samples: Vec<Option<Sample>> = (0..of).map(|_| None).collect();
    let mut done = 0;
    for chosen in in_file_order.chunk_by(|(_, a), (_, b)| a.file == b.file) {
        let Some((file, _)) = chosen.first().and_then(|(_, c)| files.get(c.file as usize)) else { continue };
        collect_rows(admission, file, chosen, &mut |batch| {
            done += batch.len();
            for (pending, tokenized) in tokenize_batch(admission, batch) {
                match tokenized {
                    Ok(sample) => samples[pending.place] = Some(sample),
                    Err(why) => {
                        outcome.skips.add(file, pending.line, why, admission.settings.strict)?;
                        outcome.usable -= 1;
                    }
                }
            }
            on_event(CorpusEvent::Tokenized { dataset: admission.dataset.clone(), done, of });
            Ok(())
        })?;
    }
    Ok(samples.into_iter().flatten().collect())
}

/// Reads the rows of `chosen` (ascending) out of their file and hands them on in batches.
fn collect_rows(
    admission: &Admission<'_>,
    file: &DataFile,
    chosen: &[(usize, Candidate)],
    take: &mut dyn FnMut(Vec<Pending>) -> Result<(), CorpusError>,
) -> Result<(), CorpusError> {
    let mut wanted = chosen.iter().peekable();
    let (mut batch, mut bytes, mut row_of_file) = (Vec::new(), 0, 0u32);
    read_rows(file, admission.wanted(), &mut |row| {
        let index = row_of_file;
        row_of_file = row_of_file.saturating_add(1);
        let Some(&(place, candidate)) = wanted.next_if(|(_, c)| c.row == index) else {
            return Ok(ControlFlow::Continue(()));
        };
        let admitted = admission.judge(row.content)?.ok().filter(|a| a.hash == candidate.hash);
        let admitted = admitted.ok_or_else(|| CorpusError::Changed { path: file.path.clone() })?;
        let body = match admitted.body {
            Body::Text(text) => Body::Text(text.into_owned().into()),
            Body::RenderedChat(text) => Body::RenderedChat(text),
            Body::TokenIds(ids) => Body::TokenIds(ids),
        };
        bytes += body.bytes();
        let label = row.label.map(|label| Name::from(&*label));
        batch.push(Pending { place, candidate, line: row.line, label, body });
        if batch.len() == BATCH_ROWS || bytes >= BATCH_BYTES {
            bytes = 0;
            take(std::mem::take(&mut batch))?;
        }
        Ok(if wanted.peek().is_some() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    if wanted.peek().is_some() {
        return Err(CorpusError::Changed { path: file.path.clone() });
    }
    if batch.is_empty() { Ok(()) } else { take(batch) }
}

impl Body<'_> {
    fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::RenderedChat(text) => text.len(),
            Self::TokenIds(ids) => size_of_val(ids.as_slice()),
        }
    }
}

fn tokenize_batch(admission: &Admission<'_>, batch: Vec<Pending>) -> Vec<(Pending, Result<Sample, BadRow>)> {
    batch
        .into_par_iter()
        .map(|mut pending| {
            let sample = sample_of(admission, &mut pending);
            (pending, sample)
        })
        .collect()
}

fn sample_of(admission: &Admission<'_>, pending: &mut Pending) -> Result<Sample, BadRow> {
    let settings = admission.settings;
    let bos = admission.bos(&pending.body);
    let mut tokens = tokens_of(admission, &mut pending.body)?;
    if tokens.is_empty() {
        return Err(BadRow::new(SkipReason::EmptyAfterTokenizing, "a text without a token"));
    }
    let truncated = tokens.len() > settings.max_length;
    tokens.truncate(settings.max_length);
    tokens.shrink_to_fit();
    let text = match std::mem::replace(&mut pending.body, Body::TokenIds(Vec::new())) {
        Body::Text(text) => Some(text.into_owned()),
        Body::RenderedChat(text) => Some(text),
        Body::TokenIds(_) => None,
    };
    let Candidate { id, file, row, hash, .. } = pending.candidate;
    Ok(Sample {
        id: SampleId(id),
        file,
        row,
        label: pending.label.take(),
        text: text.filter(|_| settings.keep_text),
        text_hash: hash,
        begins_with_bos: bos.is_some() && tokens.first().copied() == bos,
        tokens,
        truncated,
    })
}

fn tokens_of(admission: &Admission<'_>, body: &mut Body<'_>) -> Result<Vec<TokenId>, BadRow> {
    let gave_up = |why: &dyn std::fmt::Display| BadRow::new(SkipReason::TokenizerGaveUp, why);
    let tokenizer = || admission.tokenizer.ok_or_else(|| gave_up(&"no tokenizer"));
    let tokens = match body {
        Body::TokenIds(ids) => return Ok(std::mem::take(ids)),
        Body::Text(text) => tokenizer()?.encode(text).map_err(|e| gave_up(&e))?,
        Body::RenderedChat(text) => tokenizer()?.encode_chat(text).map_err(|e| gave_up(&e))?,
    };
    // A tokenizer may know more tokens than its model.
    admission.check_ids(&tokens)?;
    Ok(tokens)
}
