//! The listener: folds passes into totals, merges totals, hands them to the report.

mod totals;

use std::ops::Range;

use moetrace_routing::{Name, RoutingGeometry, RoutingSink, RoutingView, SinkError, Span, TokenBatch};

use self::totals::SampleCounts;
pub(crate) use self::totals::{DatasetTotals, LayerTotals};
use crate::{
    Glance, MetricsError, MetricsReport,
    domain::LabelledSample,
    pass_order::{PassOrder, check_geometry, counted_rows},
    report,
    sample_subset::{Place, SUBSET_TOKENS, SampleSubset},
};

/// What is counted, and with which seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MetricsSettings {
    /// Whether beginning-of-sequence rows count. By default they don't: such a row holds no text, is the same in
    /// every sample, and routes like an outlier.
    pub include_bos: bool,
    /// Chooses the samples that permutation nulls are drawn from, and the permutations.
    pub seed: u64,
}

/// Folds routing into totals; a [`RoutingSink`].
///
/// Totals of two shards [`merge`](Self::merge) into those of both; any split of the same passes, merged in any
/// order, gives the same [`report`](Self::report) to the last bit. After an error the totals hold part of a pass
/// and must be dropped, as the sink's contract says.
#[derive(Debug, Clone)]
pub struct RoutingMetrics {
    geometry: RoutingGeometry,
    settings: MetricsSettings,
    rows_with_tie: u64,
    layers: Vec<LayerTotals>,
    /// Ascending by name, so that no order of shards shows.
    datasets: Vec<DatasetTotals>,
    /// How often each expert was chosen in a kept sample, `[L, E]`.
    subset: SampleSubset<Vec<u32>>,
    order: PassOrder,
    pass: Pass,
    sample: SampleCounts,
}

/// The pass between `begin` and `end`.
#[derive(Debug, Clone, Default)]
struct Pass {
    spans: Vec<PassSpan>,
    /// Rows with a tie in at least one layer, `[N]`.
    tied: Vec<bool>,
}

#[derive(Debug, Clone)]
struct PassSpan {
    dataset: usize,
    counted: Range<usize>,
    bos_excluded: u64,
    place: Option<Place>,
}

impl RoutingMetrics {
    /// Nothing counted yet.
    pub fn new(geometry: &RoutingGeometry, settings: &MetricsSettings) -> Self {
        let experts = geometry.experts();
        Self {
            geometry: geometry.clone(),
            settings: *settings,
            rows_with_tie: 0,
            layers: geometry.layers().iter().map(|&layer| LayerTotals::new(layer, experts)).collect(),
            datasets: Vec::new(),
            subset: SampleSubset::new(settings.seed, SUBSET_TOKENS),
            order: PassOrder::new(geometry),
            pass: Pass::default(),
            sample: SampleCounts::new(experts),
        }
    }

    /// Adds the totals of another part of the run. On an error nothing has been added.
    ///
    /// # Errors
    /// [`MetricsError::GeometryMismatch`], [`MetricsError::SettingsMismatch`], or
    /// [`MetricsError::MergeInsidePass`] if either side has a pass open.
    pub fn merge(&mut self, other: Self) -> Result<(), MetricsError> {
        check_geometry(&other.geometry, &self.geometry)?;
        if self.settings != other.settings {
            return Err(MetricsError::SettingsMismatch { found: other.settings, expected: self.settings });
        }
        self.order.check_merge(&other.order)?;
        self.rows_with_tie += other.rows_with_tie;
        self.layers.iter_mut().zip(&other.layers).for_each(|(ours, theirs)| ours.merge(theirs));
        for theirs in &other.datasets {
            let index = self.dataset_index(&theirs.name);
            self.datasets[index].merge(theirs);
        }
        self.subset.merge(other.subset);
        Ok(())
    }

    /// Every number, from the passes that have ended.
    pub fn report(&self) -> MetricsReport {
        report::build(&self.totals())
    }

    /// A few of them, at once: a report draws permutations.
    pub fn glance(&self) -> Glance {
        report::glance(&self.totals())
    }

    fn totals(&self) -> report::Totals<'_> {
        report::Totals {
            geometry: &self.geometry,
            settings: self.settings,
            rows_with_tie: self.rows_with_tie,
            layers: &self.layers,
            datasets: &self.datasets,
            subset_tokens: self.subset.samples().map(|(_, kept)| kept.tokens).sum(),
            subset: self.labelled_samples(),
        }
    }

    fn labelled_samples(&self) -> Vec<LabelledSample<'_>> {
        let labelled = self.subset.samples().filter_map(|(place, sample)| {
            let dataset = self.datasets.binary_search_by(|d| d.name.cmp(&place.dataset)).ok()?;
            Some(LabelledSample { group: dataset, counts: &sample.kept })
        });
        labelled.collect()
    }

    /// Where the data set of this name stands, after adding it if it is new.
    fn dataset_index(&mut self, name: &Name) -> usize {
        self.datasets.binary_search_by(|d| d.name.cmp(name)).unwrap_or_else(|index| {
            self.datasets.insert(index, DatasetTotals::new(name.clone(), &self.geometry));
            index
        })
    }

    fn pass_span(&mut self, span: &Span) -> PassSpan {
        let (counted, bos_excluded) = counted_rows(span, self.settings.include_bos);
        // A sample that is nothing but its BOS token has nothing to permute.
        let place = (!counted.is_empty())
            .then(|| self.subset.offer(&span.dataset, span.sample, counted.len() as u64));
        PassSpan { dataset: self.dataset_index(&span.dataset), counted, bos_excluded, place }
    }

    fn record_layer(&mut self, view: &RoutingView<'_>) -> Result<(), MetricsError> {
        let ordinal = self.order.layer(view)?;
        let (experts, k) = (self.geometry.experts(), self.geometry.chosen());
        let (layer, pass) = (&mut self.layers[ordinal], &mut self.pass);
        let loads_of_all = self.geometry.layers().len() * experts;
        for span in &pass.spans {
            let Some(place) = &span.place else { continue };
            self.sample.count(view, span.counted.clone(), layer, &mut pass.tied)?;
            let counts = &self.sample.experts;
            layer.samples += 1;
            layer.samples_with.iter_mut().zip(counts).for_each(|(with, &n)| *with += u64::from(n > 0));
            let loads = &mut self.datasets[span.dataset].loads[ordinal * experts..][..experts];
            loads.iter_mut().zip(counts).for_each(|(load, &n)| *load += u64::from(n));
            layer.scores.add_sample(counts, &self.sample.weights, k, span.counted.len() as u64);
            if let Some(kept) = self.subset.get_mut(place) {
                kept.resize(loads_of_all, 0);
                let cells = &mut kept[ordinal * experts..][..experts];
                cells.iter_mut().zip(counts).for_each(|(cell, n)| *cell += n);
            }
        }
        Ok(())
    }

    fn begin_pass(&mut self, batch: &TokenBatch) -> Result<(), MetricsError> {
        self.order.begin(batch.len())?;
        // All names first: a name added later would move the index of one before it.
        for span in batch.spans() {
            self.dataset_index(&span.dataset);
        }
        let spans = batch.spans().iter().map(|span| self.pass_span(span)).collect();
        self.subset.trim();
        self.pass = Pass { spans, tied: vec![false; batch.len()] };
        Ok(())
    }

    fn end_pass(&mut self) -> Result<(), MetricsError> {
        self.order.end()?;
        let pass = std::mem::take(&mut self.pass);
        for span in &pass.spans {
            let dataset = &mut self.datasets[span.dataset];
            dataset.samples += 1;
            dataset.tokens += span.counted.len() as u64;
            dataset.bos_excluded += span.bos_excluded;
        }
        self.rows_with_tie += pass.tied.iter().filter(|&&tied| tied).count() as u64;
        Ok(())
    }
}

impl RoutingSink for RoutingMetrics {
    fn begin(&mut self, batch: &TokenBatch) -> Result<(), SinkError> {
        self.begin_pass(batch).map_err(SinkError::new)
    }
    fn record(&mut self, view: &RoutingView<'_>) -> Result<(), SinkError> {
        self.record_layer(view).map_err(SinkError::new)
    }
    fn end(&mut self) -> Result<(), SinkError> {
        self.end_pass().map_err(SinkError::new)
    }
}
