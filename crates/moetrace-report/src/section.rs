//! What a page is made of before it is markup: sections of blocks, each with a drawing, how to read it, and numbers.

use maud::{Markup, html};

use crate::figure::Figure;
use crate::heat::HeatMap;

/// A part of the page with a place in its table of contents.
#[derive(Debug, Clone)]
pub(crate) struct Section {
    /// Lower case, digits and hyphens.
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    /// What question it answers.
    pub(crate) lead: String,
    pub(crate) blocks: Vec<Block>,
}

/// A drawing with its words.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    pub(crate) heading: String,
    /// How to read it, in a sentence or two; empty where the heading says it.
    pub(crate) how: String,
    pub(crate) drawing: Drawing,
    /// The same numbers as text.
    pub(crate) table: Option<Table>,
}

/// What a block shows.
#[derive(Debug, Clone)]
pub(crate) enum Drawing {
    /// Nothing but its table.
    None,
    /// One figure.
    Chart(Figure),
    /// A heat map, with choices where it has several layers.
    Heat(Box<HeatMap>),
    /// Markup of the page's own.
    Markup(Markup),
}

/// Numbers as text.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    pub(crate) caption: String,
    pub(crate) header: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
    /// Shown from the start, and not behind a line that opens it.
    pub(crate) open: bool,
}

impl Table {
    pub(crate) fn new(caption: &str, header: &[&str], rows: Vec<Vec<String>>) -> Self {
        let header = header.iter().map(|&h| h.to_owned()).collect();
        Self { caption: caption.to_owned(), header, rows, open: false }
    }

    pub(crate) fn opened(self) -> Self {
        Self { open: true, ..self }
    }

    fn markup(&self) -> Markup {
        let table = html! {
            table {
                caption { (self.caption) }
                thead { tr { @for name in &self.header { th scope="col" { (name) } } } }
                tbody {
                    @for row in &self.rows {
                        tr {
                            @for (i, cell) in row.iter().enumerate() {
                                @if i == 0 { th scope="row" { (cell) } } @else { td { (cell) } }
                            }
                        }
                    }
                }
            }
        };
        let id = self.caption.clone();
        if self.open {
            html! { div class="scroll" tabindex="0" role="region" aria-label=(id) { (table) } }
        } else {
            html! {
                details { summary { "Table: " (self.caption) }
                    div class="scroll" tabindex="0" role="region" aria-label=(id) { (table) } }
            }
        }
    }
}

impl Section {
    /// Every figure of the section, for files.
    pub(crate) fn figures(&self) -> Vec<Figure> {
        let of = |block: &Block| match &block.drawing {
            Drawing::Chart(figure) => vec![figure.clone()],
            Drawing::Heat(map) => map.draw_all(),
            Drawing::None | Drawing::Markup(_) => Vec::new(),
        };
        self.blocks.iter().flat_map(of).collect()
    }

    /// Every heat map of the section.
    pub(crate) fn heat_maps(&self) -> impl Iterator<Item = &HeatMap> {
        self.blocks.iter().filter_map(|block| match &block.drawing {
            Drawing::Heat(map) => Some(map.as_ref()),
            _ => None,
        })
    }

    pub(crate) fn markup(&self) -> Markup {
        html! {
            section id=(self.id) aria-labelledby={ (self.id) "-title" } {
                h2 id={ (self.id) "-title" } { (self.title) }
                @if !self.lead.is_empty() { p class="lead" { (self.lead) } }
                @for block in &self.blocks { (block.markup()) }
            }
        }
    }
}

impl Block {
    fn markup(&self) -> Markup {
        html! {
            div class="block" {
                @if !self.heading.is_empty() { h3 { (self.heading) } }
                @match &self.drawing {
                    Drawing::None => {}
                    Drawing::Chart(figure) => { (drawn(figure)) }
                    Drawing::Heat(map) => {
                        @if let Some(figure) = map.draw() { (controls(map)) (drawn(&figure)) }
                    }
                    Drawing::Markup(markup) => { (markup) }
                }
                @if !self.how.is_empty() { p class="how" { b { "How to read this. " } (self.how) } }
                @if let Some(table) = &self.table { (table.markup()) }
            }
        }
    }
}

fn drawn(figure: &Figure) -> Markup {
    html! {
        figure { (figure.in_page()) }
        p class="readout" aria-live="polite" data-readout=(figure.name) {}
    }
}

/// Choices above a heat map; absent where there is nothing to choose.
fn controls(map: &HeatMap) -> Markup {
    let ordered = map.layers.iter().any(|layer| layer.order.is_some());
    html! {
        @if map.layers.len() > 1 || map.measures.len() > 1 || ordered {
            div class="controls" data-controls=(map.name) {
                @if map.layers.len() > 1 {
                    button type="button" data-step="-1" aria-label="layer before" { "◀" }
                    label { "layer " select data-choice="layer" {
                        @for (i, layer) in map.layers.iter().enumerate() { option value=(i) { (layer.name) } }
                    } }
                    button type="button" data-step="1" aria-label="layer after" { "▶" }
                }
                @if map.measures.len() > 1 {
                    label { "shows " select data-choice="measure" {
                        @for (i, m) in map.measures.iter().enumerate() { option value=(i) { (m.title) } }
                    } }
                }
                @if ordered {
                    label { "order " select data-choice="order" {
                        option value="1" { "by cluster" } option value="0" { "by number" }
                    } }
                }
            }
        }
    }
}
