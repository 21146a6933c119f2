//! The page: its sections in order, and the document around them.

mod balance;
mod cards;
mod coactivation;
mod coverage;
mod cross_layer;
mod depth;
mod document;
mod entropy;
mod fidelity;
mod groups;
mod load;
mod models;
mod notes;
mod overview;
mod segments;
mod temporal;
mod terms;
mod vocabulary;

pub use document::page;

use crate::input::ReportInput;
use crate::section::Section;

/// Every section that the numbers at hand allow, in the order of the page.
pub(crate) fn sections(input: &ReportInput<'_>) -> Vec<Section> {
    let all = [
        Some(overview::section(input)),
        models::section(input),
        Some(load::section(input)),
        Some(balance::section(input)),
        Some(entropy::section(input)),
        Some(coverage::section(input)),
        groups::datasets(input),
        groups::labels(input),
        groups::positions(input),
        coactivation::section(input),
        temporal::section(input),
        cross_layer::section(input),
        segments::section(input),
        vocabulary::section(input),
        cards::section(input),
        fidelity::section(input),
        Some(terms::section()),
        Some(notes::section(input)),
    ];
    all.into_iter().flatten().collect()
}

/// `0` to `E - 1`.
fn expert_names(experts: usize) -> Vec<String> {
    (0..experts).map(|e| e.to_string()).collect()
}
