//! Lines over depth, tokens or distance, with what is expected without structure beside them.

use std::fmt::Write as _;

use maud::{Markup, html};

use super::{Figure, Frame, number, tick_label};
use crate::scale::Scale;
use crate::text::significant;

/// One line; a value that is not known leaves a gap.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    pub(crate) name: String,
    /// `[points]`.
    pub(crate) values: Vec<Option<f64>>,
}

impl Series {
    pub(crate) fn new(name: impl Into<String>, values: impl IntoIterator<Item = f64>) -> Self {
        Self { name: name.into(), values: values.into_iter().map(Some).collect() }
    }
}

/// A dashed line: what routing without structure gives, or a bound.
#[derive(Debug, Clone)]
pub(crate) struct Reference {
    pub(crate) name: String,
    /// `[points]`, or one for all.
    pub(crate) values: Vec<f64>,
}

/// A chart of lines over common points.
#[derive(Debug, Clone)]
pub(crate) struct LineChart {
    pub(crate) name: String,
    pub(crate) label: String,
    pub(crate) x_title: String,
    pub(crate) y_title: String,
    /// What a point is called when it is read out, such as `layer`.
    pub(crate) point: String,
    /// `[points]`, ascending.
    pub(crate) points: Vec<f64>,
    /// Equal ratios are equal steps on the horizontal axis.
    pub(crate) x_log: bool,
    pub(crate) series: Vec<Series>,
    pub(crate) references: Vec<Reference>,
    /// The top of the vertical axis where it must not follow the values, such as 1 of a share.
    pub(crate) y_high: Option<f64>,
}

const WIDTH: f64 = 760.0;
const LEGEND_ROW: f64 = 20.0;
/// Labels of points are at least this far apart.
const BETWEEN_LABELS: f64 = 34.0;

impl LineChart {
    pub(crate) fn draw(&self) -> Figure {
        let rows = self.legend_rows();
        let top = 34.0 + LEGEND_ROW * rows.len() as f64;
        let frame = Frame { left: 64.0, top, width: WIDTH - 64.0 - 20.0, height: 220.0 };
        let (x, y) = (self.x_scale(), self.y_scale());
        let body = html! {
            (legend(&rows))
            (frame.vertical(y, ""))
            text class="axis" x="8" y=(number(top - 14.0)) { (self.y_title) }
            (frame.horizontal(&self.x_ticks(&frame, x), &self.x_title))
            @for (i, r) in self.references.iter().enumerate() { (self.reference(&frame, x, y, i, r)) }
            @for (i, series) in self.series.iter().enumerate() { (self.line(&frame, x, y, i, series)) }
            (self.hits(&frame, x))
        };
        let height = frame.bottom() + 50.0;
        Figure { name: self.name.clone(), label: self.label.clone(), width: WIDTH, height, body }
    }

    fn x_scale(&self) -> Scale {
        let (low, high) =
            (self.points.first().copied().unwrap_or(0.0), self.points.last().copied().unwrap_or(1.0));
        if self.x_log {
            return Scale::logarithmic([low, high].into_iter());
        }
        // Half a step on either side, so that no point lies on the frame.
        let half =
            if self.points.len() > 1 { (high - low) / (self.points.len() - 1) as f64 / 2.0 } else { 0.5 };
        Scale { low: low - half, high: high + half, log: false }
    }

    fn y_scale(&self) -> Scale {
        let drawn = self.series.iter().flat_map(|s| s.values.iter().copied().flatten());
        let expected = self.references.iter().flat_map(|r| r.values.iter().copied());
        match self.y_high {
            Some(high) => Scale { low: 0.0, high, log: false },
            None => Scale::from_zero(drawn.chain(expected)),
        }
    }

    fn x_ticks(&self, frame: &Frame, scale: Scale) -> Vec<(f64, String)> {
        if self.x_log {
            return scale.ticks().iter().map(|&t| (frame.x(scale, t), tick_label(t))).collect();
        }
        let most = (frame.width / BETWEEN_LABELS) as usize;
        let every = self.points.len().div_ceil(most.max(1)).max(1);
        let kept = self.points.iter().step_by(every);
        kept.map(|&p| (frame.x(scale, p), tick_label(p))).collect()
    }

    fn line(&self, frame: &Frame, x: Scale, y: Scale, index: usize, series: &Series) -> Markup {
        let at = |(&p, v): (&f64, &Option<f64>)| v.map(|v| (frame.x(x, p), frame.y(y, v)));
        let places: Vec<Option<(f64, f64)>> = self.points.iter().zip(&series.values).map(at).collect();
        let dots = if self.points.len() <= 64 { 2.6 } else { 0.0 };
        html! {
            path class={ "line s" (index) } d=(path(&places)) {}
            @if dots > 0.0 {
                @for (px, py) in places.iter().flatten() {
                    circle class={ "dot s" (index) } cx=(number(*px)) cy=(number(*py)) r=(number(dots)) {}
                }
            }
        }
    }

    fn reference(&self, frame: &Frame, x: Scale, y: Scale, index: usize, reference: &Reference) -> Markup {
        let place = |p: f64, v: f64| Some((frame.x(x, p), frame.y(y, v)));
        let places: Vec<_> = match reference.values.as_slice() {
            [one] => vec![place(x.low, *one), place(x.high, *one)],
            many => self.points.iter().zip(many).map(|(&p, &v)| place(p, v)).collect(),
        };
        html! { path class={ "null n" (index) } d=(path(&places)) {} }
    }

    /// Bands that the pointer falls into, one for each point, each with what is to be read there.
    fn hits(&self, frame: &Frame, x: Scale) -> Markup {
        let places: Vec<f64> = self.points.iter().map(|&p| frame.x(x, p)).collect();
        let edge = |i: usize| match (i.checked_sub(1).and_then(|j| places.get(j)), places.get(i)) {
            (Some(a), Some(b)) => f64::midpoint(*a, *b),
            (None, _) => frame.left,
            (_, None) => frame.right(),
        };
        html! {
            @for i in 0..places.len() {
                rect class="hit" x=(number(edge(i))) y=(number(frame.top)) width=(number(edge(i + 1) - edge(i)))
                    height=(number(frame.height)) data-t=(self.read(i)) {}
            }
        }
    }

    fn read(&self, index: usize) -> String {
        let point = self.points.get(index).map_or_else(String::new, |&p| tick_label(p));
        let mut lines = vec![format!("{} {point}", self.point)];
        for series in &self.series {
            if let Some(Some(value)) = series.values.get(index) {
                lines.push(format!("{}: {}", series.name, significant(*value)));
            }
        }
        for reference in &self.references {
            if let Some(value) = reference.values.get(index).or(reference.values.first()) {
                lines.push(format!("{}: {}", reference.name, significant(*value)));
            }
        }
        lines.join("\n")
    }

    /// Names with the class of their line, cut into rows that fit.
    fn legend_rows(&self) -> Vec<Vec<(String, String)>> {
        let lines = self.series.iter().enumerate().map(|(i, s)| (format!("line s{i}"), s.name.clone()));
        let nulls = self.references.iter().enumerate().map(|(i, r)| (format!("null n{i}"), r.name.clone()));
        let mut rows: Vec<Vec<(String, String)>> = Vec::new();
        let mut used = f64::INFINITY;
        for entry in lines.chain(nulls) {
            let width = entry_width(&entry.1);
            if used + width > WIDTH - 16.0 {
                rows.push(Vec::new());
                used = 0.0;
            }
            used += width;
            if let Some(row) = rows.last_mut() {
                row.push(entry);
            }
        }
        rows
    }
}

/// Wide enough for the name in any sans serif of 12 pixels.
fn entry_width(name: &str) -> f64 {
    48.0 + 7.0 * name.chars().count() as f64
}

fn legend(rows: &[Vec<(String, String)>]) -> Markup {
    let placed = rows.iter().enumerate().flat_map(|(row, entries)| {
        let mut x = 8.0;
        entries.iter().map(move |(class, name)| {
            let at = x;
            x += entry_width(name);
            (at, 14.0 + LEGEND_ROW * row as f64, class, name)
        })
    });
    html! {
        @for (x, y, class, name) in placed {
            line class=(class) x1=(number(x)) x2=(number(x + 22.0)) y1=(number(y - 4.0)) y2=(number(y - 4.0)) {}
            text class="key" x=(number(x + 28.0)) y=(number(y)) { (name) }
        }
    }
}

/// A path through known places; gaps begin anew.
fn path(places: &[Option<(f64, f64)>]) -> String {
    let mut out = String::new();
    let mut drawing = false;
    for place in places {
        if let Some((x, y)) = place {
            // Writing to a String does not fail.
            let _ = write!(out, "{}{} {}", if drawing { 'L' } else { 'M' }, number(*x), number(*y));
        }
        drawing = place.is_some();
    }
    out
}
