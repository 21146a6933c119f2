//! Heat maps over counts: one drawing of the first layer, and the counts of all of them for the script.
//!
//! Whatever a map is about, a cell has a count n, its row a total a, its column a total b, and its layer a total t
//! such that a b / t is the count to expect if rows and columns were independent. Measures follow.

use serde::Serialize;

use crate::figure::{Figure, Grid, GridColours};
use crate::island;

/// What of a cell is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Measure {
    /// n t / (a b): how many times as often as if independent; unknown where fewer than five are to be expected.
    Lift,
    /// n per / a: part of the row's tokens.
    Share,
    /// n / (a + b - n).
    Jaccard,
}

impl Measure {
    /// Of one cell; nothing where its row or column is empty.
    fn of(self, n: f64, a: f64, b: f64, layer: &HeatLayer, per: f64) -> Option<f64> {
        let (top, below) = match self {
            Self::Lift => (n * layer.total, a * b),
            Self::Share => (n * per, a),
            Self::Jaccard => (n, a + b - n),
        };
        // The rule of thumb for tables of counts: below five expected a ratio is mostly chance.
        let known = self != Self::Lift || a * b >= LEAST_EXPECTED * layer.total;
        (below > 0.0 && known).then(|| top / below)
    }
}

/// Counts to be expected by chance for a ratio to be shown.
pub(crate) const LEAST_EXPECTED: f64 = 5.0;

/// A measure with its words.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    pub(crate) measure: Measure,
    /// As a choice and when a cell is read out.
    pub(crate) title: &'static str,
    /// Beside the colours.
    pub(crate) legend: &'static str,
}

/// One layer's counts.
#[derive(Debug, Clone)]
pub(crate) struct HeatLayer {
    pub(crate) name: String,
    /// `[rows, columns]`, or without the diagonal and what is below it where pairs have no order.
    pub(crate) counts: Vec<u64>,
    /// `[rows]`
    pub(crate) row_totals: Vec<u64>,
    /// `[columns]`
    pub(crate) column_totals: Vec<u64>,
    pub(crate) total: f64,
    /// A permutation of the rows, and of the columns, that brings like to like.
    pub(crate) order: Option<Vec<u16>>,
}

/// A map with a choice of layers.
#[derive(Debug, Clone)]
pub(crate) struct HeatMap {
    pub(crate) name: &'static str,
    pub(crate) label: String,
    /// What a row and a column is, such as `expert`.
    pub(crate) row: &'static str,
    pub(crate) column: &'static str,
    pub(crate) row_names: Vec<String>,
    pub(crate) column_names: Vec<String>,
    /// What is counted, such as `tokens`.
    pub(crate) counted: &'static str,
    /// Counts are of unordered pairs of the same things.
    pub(crate) symmetric: bool,
    /// Row totals count each token this many times.
    pub(crate) per: f64,
    pub(crate) measures: Vec<Measured>,
    pub(crate) layers: Vec<HeatLayer>,
    pub(crate) square: bool,
}

/// What the script needs to fill a map again and to read out a cell.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct HeatIsland {
    rows: usize,
    columns: usize,
    row: &'static str,
    column: &'static str,
    row_names: Vec<String>,
    column_names: Vec<String>,
    counted: &'static str,
    symmetric: bool,
    per: f64,
    measures: Vec<IslandMeasure>,
    layers: Vec<IslandLayer>,
}

#[derive(Debug, Clone, Serialize)]
struct IslandMeasure {
    measure: Measure,
    title: &'static str,
    legend: &'static str,
    ramp: char,
    /// Octaves of a ratio, highest of an amount.
    limit: f64,
    /// Where labels of the colours stand, 0 to 1.
    keys: Vec<(f64, String)>,
}

#[derive(Debug, Clone, Serialize)]
struct IslandLayer {
    name: String,
    counts: String,
    a: Vec<u64>,
    b: Vec<u64>,
    t: f64,
    order: Option<String>,
}

impl HeatLayer {
    /// A table of `[columns, columns]` counts, to be compared with independent rows and columns.
    pub(crate) fn of_table(name: String, counts: &[u64], columns: usize) -> Self {
        let rows = counts.chunks_exact(columns.max(1));
        let row_totals: Vec<u64> = rows.clone().map(|row| row.iter().sum()).collect();
        let mut column_totals = vec![0; columns];
        for row in rows {
            column_totals.iter_mut().zip(row).for_each(|(sum, n)| *sum += n);
        }
        let total = row_totals.iter().sum::<u64>() as f64;
        Self { name, counts: counts.to_vec(), row_totals, column_totals, total, order: None }
    }
}

impl HeatMap {
    /// The place of a cell among a layer's counts; none on the diagonal of pairs.
    fn place(&self, row: usize, column: usize) -> Option<usize> {
        if !self.symmetric {
            return Some(row * self.column_names.len() + column);
        }
        let n = self.row_names.len();
        let (i, j) = (row.min(column), row.max(column));
        (i != j).then(|| n * i - i * (i + 1) / 2 + j - i - 1)
    }

    /// All cells of a layer, rows and columns in the layer's order if it has one.
    fn values(&self, layer: &HeatLayer, measure: Measure) -> Vec<Option<f64>> {
        let (rows, columns) = (self.row_names.len(), self.column_names.len());
        let at =
            |i: usize| layer.order.as_ref().and_then(|order| order.get(i)).map_or(i, |&to| usize::from(to));
        let cell = |i: usize, j: usize| {
            let n = *layer.counts.get(self.place(i, j)?)? as f64;
            let (a, b) = (*layer.row_totals.get(i)? as f64, *layer.column_totals.get(j)? as f64);
            measure.of(n, a, b, layer, self.per)
        };
        (0..rows).flat_map(|i| (0..columns).map(move |j| (i, j))).map(|(i, j)| cell(at(i), at(j))).collect()
    }

    /// One scale for all layers, so that they can be compared.
    fn colours(&self, measure: Measure) -> GridColours {
        let values = self.layers.iter().flat_map(|layer| self.values(layer, measure)).flatten();
        match measure {
            Measure::Lift => GridColours::ratio(values),
            Measure::Share | Measure::Jaccard => GridColours::amount(values),
        }
    }

    /// The first layer in the first measure.
    pub(crate) fn draw(&self) -> Option<Figure> {
        self.draw_layer(self.layers.first()?, self.name.to_owned())
    }

    /// Every layer as a figure of its own, for files.
    pub(crate) fn draw_all(&self) -> Vec<Figure> {
        let numbered = |layer: &HeatLayer| format!("{}-layer-{}", self.name, layer.name.replace(' ', "-"));
        let named = |layer: &HeatLayer| {
            if self.layers.len() == 1 { self.name.to_owned() } else { numbered(layer) }
        };
        self.layers.iter().filter_map(|layer| self.draw_layer(layer, named(layer))).collect()
    }

    fn draw_layer(&self, layer: &HeatLayer, name: String) -> Option<Figure> {
        let first = self.measures.first()?;
        let ordered = |names: &[String]| -> Vec<String> {
            match &layer.order {
                Some(order) => order.iter().filter_map(|&i| names.get(usize::from(i)).cloned()).collect(),
                None => names.to_vec(),
            }
        };
        let grid = Grid {
            name,
            label: self.label.clone(),
            row_title: self.row.to_owned(),
            column_title: self.column.to_owned(),
            row_names: ordered(&self.row_names),
            column_names: ordered(&self.column_names),
            values: self.values(layer, first.measure),
            colours: self.colours(first.measure),
            legend: first.legend.to_owned(),
            square: self.square,
        };
        Some(grid.draw())
    }

    pub(crate) fn island(&self) -> HeatIsland {
        let measure = |m: &Measured| {
            let colours = self.colours(m.measure);
            let limit = match colours {
                GridColours::Ratio { octaves } => octaves,
                GridColours::Amount { highest } => highest,
            };
            IslandMeasure {
                measure: m.measure,
                title: m.title,
                legend: m.legend,
                ramp: colours.ramp().letter(),
                limit,
                keys: colours.ticks(),
            }
        };
        let layer = |l: &HeatLayer| IslandLayer {
            name: l.name.clone(),
            counts: island::counts(l.counts.iter().copied()),
            a: l.row_totals.clone(),
            b: l.column_totals.clone(),
            t: l.total,
            order: l.order.as_ref().map(|order| island::words(order.iter().copied())),
        };
        HeatIsland {
            rows: self.row_names.len(),
            columns: self.column_names.len(),
            row: self.row,
            column: self.column,
            row_names: self.row_names.clone(),
            column_names: self.column_names.clone(),
            counted: self.counted,
            symmetric: self.symmetric,
            per: self.per,
            measures: self.measures.iter().map(measure).collect(),
            layers: self.layers.iter().map(layer).collect(),
        }
    }
}
