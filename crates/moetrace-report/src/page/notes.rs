//! What to keep in mind, at the end of the page.

use maud::html;

use crate::input::ReportInput;
use crate::section::{Block, Drawing, Section};
use crate::text::{counted, thousands};

pub(crate) fn section(input: &ReportInput<'_>) -> Section {
    let m = &input.run.metrics;
    let bos = if m.include_bos {
        "Rows of the beginning-of-sequence token are counted.".to_owned()
    } else {
        format!(
            "{} of the beginning-of-sequence token are recorded and not counted: such a row holds no text and is the \
             same in every sample.",
            counted(m.bos_excluded, "row")
        )
    };
    let ties = m.rows_with_tie.map(|rows| {
        format!(
            "{} of {} tokens have, in some layer, equal scores at the last rank chosen and the next: which expert was \
             chosen there is an accident of the implementation.",
            thousands(rows),
            thousands(m.tokens)
        )
    });
    let list = html! {
        ul {
            li { (bos) }
            @if let Some(ties) = ties { li { (ties) } }
            li { "Entropies are in bits. Numbers are computed per layer; ids of different layers are never merged." }
            li { "A cell of a heat map is grey where fewer than five tokens are to be expected in it by chance: a ratio \
                  to so few is mostly noise." }
            li { "A count in a heat map is exact below 2,900 and within 0.02 % above." }
            li { "What experts are used for is observed, not caused: an expert that is used much is not therefore one \
                  that matters much." }
            li { "Every formula, with its source and its value without structure, is in docs/metrics.md of moetrace." }
        }
    };
    let block =
        Block { heading: String::new(), how: String::new(), drawing: Drawing::Markup(list), table: None };
    Section { id: "notes", title: "Notes", lead: String::new(), blocks: vec![block] }
}
