//! Heat maps: a cell for each pair of row and column, coloured by level.
//!
//! The cells of one level are one path of unit squares, so that a map of 64 by 64 takes 50 kB and stays sharp at any
//! size; the page's script fills the same paths anew when another layer or measure is chosen.

use std::fmt::Write as _;

use maud::{Markup, html};

use super::{Figure, number, tick_label};
use crate::colour::{LEVELS, Ramp};

/// How values become levels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum GridColours {
    /// Ratios to what is expected: 1 in the middle, `2^octaves` and its inverse at the ends.
    Ratio {
        /// Doublings from the middle to an end.
        octaves: f64,
    },
    /// From 0 to `highest`.
    Amount {
        /// What the last level stands for.
        highest: f64,
    },
}

impl GridColours {
    pub(crate) fn ramp(self) -> Ramp {
        match self {
            Self::Ratio { .. } => Ramp::Diverging,
            Self::Amount { .. } => Ramp::Sequential,
        }
    }

    /// Ratios: as many whole doublings as 98 of 100 cells need, between 1 and 4.
    pub(crate) fn ratio(values: impl Iterator<Item = f64>) -> Self {
        let away = values.filter(|v| *v > 0.0 && v.is_finite()).map(|v| v.log2().abs());
        Self::Ratio { octaves: highest_but_two_percent(away).ceil().clamp(1.0, 4.0) }
    }

    /// Amounts: up to what 98 of 100 cells reach, as a round number.
    pub(crate) fn amount(values: impl Iterator<Item = f64>) -> Self {
        let high = highest_but_two_percent(values.filter(|v| v.is_finite()));
        Self::Amount { highest: crate::scale::Scale::from_zero(std::iter::once(high)).high }
    }

    /// Labels below the legend and where they stand, 0 to 1.
    pub(crate) fn ticks(self) -> Vec<(f64, String)> {
        match self {
            Self::Ratio { octaves } => {
                let ends = octaves as i32;
                let of = |o: i32| {
                    let label = if o < 0 { format!("1/{}", 1 << -o) } else { (1 << o).to_string() };
                    (f64::midpoint(f64::from(o) / octaves, 1.0), format!("{label}×"))
                };
                (-ends..=ends).map(of).collect()
            }
            Self::Amount { highest } => {
                [0.0, 0.5, 1.0].map(|at| (at, tick_label(at * highest))).into_iter().collect()
            }
        }
    }
}

fn highest_but_two_percent(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let at = (values.len() as f64 * 0.98) as usize;
    values.get(at.min(values.len().saturating_sub(1))).copied().unwrap_or(0.0)
}

/// The level of a value; the script has the same lines.
pub(crate) fn level(colours: GridColours, value: f64) -> usize {
    let last = (LEVELS - 1) as f64;
    let at = match colours {
        GridColours::Ratio { octaves } => f64::midpoint(value.log2() / octaves, 1.0),
        GridColours::Amount { highest } => value / highest,
    };
    // The logarithm of 0 is minus infinity, which is the lowest level.
    (at.clamp(0.0, 1.0) * last).round() as usize
}

/// A heat map.
#[derive(Debug, Clone)]
pub(crate) struct Grid {
    pub(crate) name: String,
    pub(crate) label: String,
    pub(crate) row_title: String,
    pub(crate) column_title: String,
    /// `[rows]`
    pub(crate) row_names: Vec<String>,
    /// `[columns]`
    pub(crate) column_names: Vec<String>,
    /// `[rows, columns]`; what is not known stays blank.
    pub(crate) values: Vec<Option<f64>>,
    pub(crate) colours: GridColours,
    /// What colours stand for.
    pub(crate) legend: String,
    /// Rows are as high as columns are wide.
    pub(crate) square: bool,
}

const WIDTH: f64 = 760.0;
const TOP: f64 = 64.0;
/// Labels of rows or columns are at least this far apart.
const ROW_LABELS: f64 = 13.0;
const COLUMN_LABELS: f64 = 22.0;

impl Grid {
    pub(crate) fn draw(&self) -> Figure {
        let (rows, columns) = (self.row_names.len(), self.column_names.len());
        let longest = self.row_names.iter().map(|n| n.chars().count()).max().unwrap_or(0).min(18);
        let left = 38.0 + 6.6 * longest as f64;
        let most = if self.square { 600.0 } else { WIDTH - left - 16.0 };
        let width = (most / columns.max(1) as f64).min(36.0);
        let height =
            if self.square { width } else { width.clamp(if rows <= 16 { ROW_LABELS } else { 9.0 }, 18.0) };
        let bottom = TOP + height * rows as f64;
        let body = html! {
            (self.legend(left))
            g class="cells" transform={ "translate(" (number(left)) " " (number(TOP)) ") scale("
                (format!("{width:.4}")) " " (format!("{height:.4}")) ")" }
                data-rows=(rows) data-columns=(columns) { (self.cells(columns)) }
            (self.row_labels(left, height, rows))
            (self.column_labels(left, width, bottom, columns))
        };
        let drawn_width = if self.square { left + width * columns as f64 + 16.0 } else { WIDTH };
        Figure {
            name: self.name.clone(),
            label: self.label.clone(),
            // Room for the legend and its words, however small the map.
            width: drawn_width.max(left + 540.0),
            height: bottom + 44.0,
            body,
        }
    }

    fn cells(&self, columns: usize) -> Markup {
        let mut paths = vec![String::new(); LEVELS];
        for (i, value) in self.values.iter().enumerate() {
            if let Some(value) = value
                && let Some(path) = paths.get_mut(level(self.colours, *value))
            {
                // Writing to a String does not fail.
                let _ = write!(path, "M{} {}h1v1h-1z", i % columns, i / columns);
            }
        }
        let letter = self.colours.ramp().letter();
        html! {
            rect class="unknown" width=(columns) height=(self.row_names.len()) {}
            @for (level, path) in paths.iter().enumerate() {
                path class={ (letter) (level) } data-level=(level) d=(path) {}
            }
            rect class="cursor" width="1" height="1" visibility="hidden" {}
        }
    }

    fn row_labels(&self, left: f64, height: f64, rows: usize) -> Markup {
        let every = (ROW_LABELS / height).ceil().max(1.0) as usize;
        html! {
            text class="axis middle" transform={ "translate(14 " (number(TOP + height * rows as f64 / 2.0))
                ") rotate(-90)" } { (self.row_title) }
            @for (i, name) in self.row_names.iter().enumerate().step_by(every) {
                text class="tick end" data-row=(i) x=(number(left - 5.0))
                    y=(number(TOP + height * (i as f64 + 0.5) + 3.5)) { (short(name)) }
            }
        }
    }

    fn column_labels(&self, left: f64, width: f64, bottom: f64, columns: usize) -> Markup {
        let every = (COLUMN_LABELS / width).ceil().max(1.0) as usize;
        html! {
            @for (i, name) in self.column_names.iter().enumerate().step_by(every) {
                text class="tick middle" data-column=(i) x=(number(left + width * (i as f64 + 0.5)))
                    y=(number(bottom + 14.0)) { (name) }
            }
            text class="axis middle" x=(number(left + width * columns as f64 / 2.0)) y=(number(bottom + 34.0)) {
                (self.column_title)
            }
        }
    }

    fn legend(&self, left: f64) -> Markup {
        let step = 9.0;
        let width = step * LEVELS as f64;
        let letter = self.colours.ramp().letter();
        html! {
            g class="legend" {
                text class="key" data-legend="" x=(number(left + width + 30.0)) y="22" { (self.legend) }
                @for level in 0..LEVELS {
                    rect class={ (letter) (level) } data-level=(level) x=(number(left + step * level as f64)) y="12"
                        width=(number(step)) height="12" {}
                }
                rect class="unknown" x=(number(left + width + 30.0)) y="29" width="12" height="10" {}
                text class="tick" x=(number(left + width + 48.0)) y="38" { "too few to tell" }
                @for (at, label) in self.colours.ticks() {
                    text class="tick middle" data-key="" x=(number(left + width * at)) y="38" { (label) }
                }
            }
        }
    }
}

/// A name that fits beside a row.
fn short(name: &str) -> String {
    if name.chars().count() <= 18 { name.into() } else { name.chars().take(17).chain(['…']).collect() }
}
