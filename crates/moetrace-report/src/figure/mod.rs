//! Figures: drawn once, as SVG. The page holds them as they are; files bring their own rules for colours.
//!
//! Nothing in a figure names a colour: shapes have classes, and a style sheet says what they look like on light or
//! dark ground. No figure loads anything.

mod axes;
mod bars;
mod grid;
mod lines;

use maud::{Markup, PreEscaped, html};

pub(crate) use axes::{Frame, tick_label};
pub(crate) use bars::Bars;
pub(crate) use grid::{Grid, GridColours};
pub(crate) use lines::{LineChart, Reference, Series};

use crate::colour;

/// The rules that every figure needs, on light ground.
pub(crate) const RULES: &str = include_str!("../../assets/figure.css");

/// One drawing.
#[derive(Debug, Clone)]
pub(crate) struct Figure {
    /// Its id in the page, after `chart-`, and the stem of its files: lower case, digits and hyphens.
    pub(crate) name: String,
    /// What it shows, in a sentence, for who does not see it.
    pub(crate) label: String,
    /// Size in its own units; one is a pixel at most.
    pub(crate) width: f64,
    pub(crate) height: f64,
    pub(crate) body: Markup,
}

impl Figure {
    /// The figure within the page; focusable, since arrow keys read it out.
    pub(crate) fn in_page(&self) -> Markup {
        html! {
            svg id={ "chart-" (self.name) } data-chart=(self.name) class="figure" role="img" aria-label=(self.label) tabindex="0"
                viewBox=(self.view_box()) width=(number(self.width)) { (self.body) }
        }
    }

    /// The figure as a file of its own.
    pub(crate) fn to_svg(&self) -> String {
        let drawn = html! {
            svg xmlns="http://www.w3.org/2000/svg" viewBox=(self.view_box())
                width=(number(self.width)) height=(number(self.height)) role="img" {
                title { (self.label) }
                style { (PreEscaped(RULES)) (PreEscaped(colour::rules(false))) }
                rect class="ground" width="100%" height="100%" {}
                (self.body)
            }
        };
        drawn.into_string()
    }

    fn view_box(&self) -> String {
        format!("0 0 {} {}", number(self.width), number(self.height))
    }
}

/// A coordinate with at most two decimals and no more zeros than it needs.
pub(crate) fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    let short = text.trim_end_matches('0').trim_end_matches('.');
    if short == "-0" { "0".into() } else { short.into() }
}
