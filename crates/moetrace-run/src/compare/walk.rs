//! The walk through both runs, data set by data set, text by text.

use moetrace_metrics::fidelity::{FidelityReport, FidelitySettings, RoutingFidelity};
use moetrace_routing::{MoeOrdinal, Planes};
use moetrace_trace::SampleRow;

use super::side::{Run, Side};
use super::{ComparedDataset, TokenBasis, TokenDifference, difference, is_on};
use crate::{RunError, Trust};

/// Most tokens compared at once, but for a longer text; the numbers do not depend on it.
const TOKENS_PER_PASS: usize = 4_096;

/// Both runs, and what has been counted so far.
pub(super) struct Walk<'a> {
    runs: (Run<'a>, Run<'a>),
    trust: Trust,
    /// Optional planes that both runs have.
    wants: Planes,
    basis: TokenBasis,
    ordinals: Vec<MoeOrdinal>,
    fidelity: RoutingFidelity,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        runs: (Run<'a>, Run<'a>),
        settings: FidelitySettings,
        trust: Trust,
    ) -> Result<Self, RunError> {
        let (a, b) = (runs.0.manifest, runs.1.manifest);
        let differences = difference::of_geometry(&a.geometry, &b.geometry);
        if !differences.is_empty() {
            let (reference, other) = (runs.0.folder.root().into(), runs.1.folder.root().into());
            return Err(RunError::OtherRouting { reference, other, differences });
        }
        let geometry = a.geometry()?;
        let both = |name: &str| [a, b].iter().all(|m| is_on(m, name));
        let neither = |name: &str| [a, b].iter().all(|m| !is_on(m, name));
        Ok(Self {
            runs,
            trust,
            wants: Planes { logits: both("router_logits"), nll: both("nll"), ..Planes::default() },
            basis: if neither("no_tokens") { TokenBasis::TokenIds } else { TokenBasis::TextHashes },
            ordinals: geometry.ordinals().collect(),
            fidelity: RoutingFidelity::new(&geometry, settings),
        })
    }

    pub(super) fn basis(&self) -> TokenBasis {
        self.basis
    }

    pub(super) fn report(&self) -> FidelityReport {
        self.fidelity.report()
    }

    /// The error that two runs are over different tokens, with what may explain it.
    fn differ(&self, at: TokenDifference) -> RunError {
        let (a, b) = self.runs;
        let (reference, other) = (a.folder.root().into(), b.folder.root().into());
        let differences = difference::of_settings(a.manifest, b.manifest);
        RunError::OtherTokens { reference, other, at: Box::new(at), differences }
    }

    /// Names of the data sets, if both runs have the same.
    pub(super) fn names(&self) -> Result<Vec<&'a str>, RunError> {
        let (a, b) = self.runs;
        let names = |run: Run<'a>| run.manifest.datasets.iter().map(|d| d.name.as_str()).collect::<Vec<_>>();
        let (in_a, in_b) = (names(a), names(b));
        let only = |run: Run<'_>, name: &&str| {
            let (dataset, only_in) = ((*name).to_owned(), run.folder.root().into());
            self.differ(TokenDifference::Dataset { dataset, only_in })
        };
        if let Some(name) = in_a.iter().find(|name| !in_b.contains(name)) {
            return Err(only(a, name));
        }
        if let Some(name) = in_b.iter().find(|name| !in_a.contains(name)) {
            return Err(only(b, name));
        }
        let tokenizer = |run: Run<'_>| run.manifest.tokenizer.as_ref().map(|t| t.hash.clone());
        if self.basis == TokenBasis::TextHashes && tokenizer(a) != tokenizer(b) {
            return Err(self.differ(TokenDifference::Tokenizer));
        }
        Ok(in_a)
    }

    /// Compares the texts of one data set that both have committed.
    pub(super) fn dataset(&mut self, name: &str) -> Result<ComparedDataset, RunError> {
        let (mut a, mut b) = (Side::new(self.runs.0, name)?, Side::new(self.runs.1, name)?);
        let planned =
            |run: Run<'_>| run.manifest.datasets.iter().find(|d| d.name == name).map_or(0, |d| d.samples);
        let mut compared = ComparedDataset {
            name: name.to_owned(),
            samples: 0,
            tokens: 0,
            reference_samples: planned(self.runs.0),
            other_samples: planned(self.runs.1),
        };
        let mut text = 0;
        while let (Some(in_a), Some(in_b)) = (a.next_from(text), b.next_from(text)) {
            text = in_a.max(in_b);
            if in_a == in_b {
                let Some((samples, tokens)) = self.pass(name, text, &mut a, &mut b)? else { break };
                text += samples;
                compared.samples += samples as u64;
                compared.tokens += tokens as u64;
            }
        }
        Ok(compared)
    }

    /// Compares the next texts from `text` on, as one pass: how many texts and tokens that was.
    fn pass(
        &mut self,
        dataset: &str,
        text: usize,
        a: &mut Side<'_>,
        b: &mut Side<'_>,
    ) -> Result<Option<(usize, usize)>, RunError> {
        let (a, b) = (a.playback(text, self.wants, self.trust)?, b.playback(text, self.wants, self.trust)?);
        let (Some(a), Some(b)) = (a, b) else { return Ok(None) };
        let samples = same_samples(dataset, text, self.basis, a.remaining(), b.remaining())
            .map_err(|at| self.differ(at))?;
        let (mut a, mut b) = (a.pass(samples)?, b.pass(samples)?);
        difference::of_rows(dataset, self.basis, a.batch(), b.batch()).map_err(|at| self.differ(at))?;
        self.fidelity.begin(a.batch())?;
        for &ordinal in &self.ordinals {
            self.fidelity.record(&a.layer(ordinal)?, &b.layer(ordinal)?)?;
        }
        self.fidelity.end()?;
        Ok(Some((samples, a.batch().len())))
    }
}

/// How many of the next samples of both sides make a pass, at least one; they must be the same.
fn same_samples(
    dataset: &str,
    text: usize,
    basis: TokenBasis,
    a: &[SampleRow],
    b: &[SampleRow],
) -> Result<usize, TokenDifference> {
    let (mut samples, mut tokens) = (0, 0);
    for (a, b) in a.iter().zip(b) {
        tokens += a.tokens as usize;
        if samples > 0 && tokens > TOKENS_PER_PASS {
            break;
        }
        difference::of_samples(dataset, text + samples, basis, a, b)?;
        samples += 1;
    }
    Ok(samples.max(1))
}
