//! All listeners as one: the core, and whichever families of metrics are asked for.

use moetrace_routing::{Planes, RoutingGeometry, RoutingSink, RoutingView, SinkError, TokenBatch};
use serde::{Deserialize, Serialize};

use crate::{
    AuxiliaryLossMetrics, AuxiliaryLossReport, CoactivationMetrics, CoactivationReport, ContextMetrics,
    ContextsReport, CrossLayerMetrics, CrossLayerReport, GroupBy, GroupMetrics, GroupsReport, MetricsError,
    MetricsReport, MetricsSettings, RoutingMetrics, SegmentMetrics, SegmentReport, TemporalMetrics,
    TemporalReport, TrackedTokens, VocabularyMetrics, VocabularyReport,
};

/// What is counted beside the core; by default nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MetricsFamilies {
    /// Pairs, sets and clusters of experts.
    pub coactivation: bool,
    /// Auxiliary losses; of routing with router logits only.
    pub auxiliary_loss: bool,
    /// Reuse along tokens, caches.
    pub temporal: bool,
    /// What a layer's experts tell about the next ones'.
    pub cross_layer: bool,
    /// Segment predictability and segment caches.
    pub segments: bool,
    /// Loads by each of these.
    pub groups: Vec<GroupBy>,
    /// Experts' best places in the texts; of routing with weights and token ids only.
    pub contexts: bool,
    /// Loads by these token ids; of routing with token ids only.
    pub vocabulary: Option<TrackedTokens>,
}

impl MetricsFamilies {
    /// All that need nothing but the experts.
    pub fn of_routing() -> Self {
        let groups = vec![GroupBy::Dataset, GroupBy::Label, GroupBy::Position];
        Self {
            coactivation: true,
            auxiliary_loss: true,
            temporal: true,
            cross_layer: true,
            segments: true,
            groups,
            ..Self::default()
        }
    }
}

/// The core and the families asked for, as one [`RoutingSink`].
///
/// Totals of two parts [`merge`](Self::merge) into those of both; any split of the same samples, merged in any
/// order, gives the same [`report`](Self::report) to the last bit. After an error the totals hold part of a pass and
/// must be dropped.
#[derive(Debug, Clone)]
pub struct MetricsSet {
    families: MetricsFamilies,
    core: RoutingMetrics,
    coactivation: Option<CoactivationMetrics>,
    auxiliary_loss: Option<AuxiliaryLossMetrics>,
    temporal: Option<TemporalMetrics>,
    cross_layer: Option<CrossLayerMetrics>,
    segments: Option<SegmentMetrics>,
    groups: Vec<GroupMetrics>,
    contexts: Option<ContextMetrics>,
    vocabulary: Option<VocabularyMetrics>,
}

/// What a [`MetricsSet`] yields. Families that were not asked for, or that the trace does not hold what they need of,
/// are absent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FullReport {
    /// The core: the fields of [`MetricsReport`] stand beside the others.
    #[serde(flatten)]
    pub core: MetricsReport,
    /// Pairs, sets and clusters of experts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coactivation: Option<CoactivationReport>,
    /// Auxiliary losses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auxiliary_loss: Option<AuxiliaryLossReport>,
    /// Reuse along tokens, caches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temporal: Option<TemporalReport>,
    /// What a layer's experts tell about the next ones'.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cross_layer: Option<CrossLayerReport>,
    /// Segment predictability and segment caches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segments: Option<SegmentReport>,
    /// Loads by data set, label or position.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupsReport>,
    /// Experts' best places in the texts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contexts: Option<ContextsReport>,
    /// Loads by token id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vocabulary: Option<VocabularyReport>,
}

impl MetricsSet {
    /// Nothing counted yet.
    pub fn new(geometry: &RoutingGeometry, settings: &MetricsSettings, families: &MetricsFamilies) -> Self {
        let f = families;
        let group = |&by: &GroupBy| GroupMetrics::new(geometry, settings, by);
        let tracked = f.vocabulary.as_ref();
        Self {
            families: f.clone(),
            core: RoutingMetrics::new(geometry, settings),
            coactivation: f.coactivation.then(|| CoactivationMetrics::new(geometry, settings)),
            auxiliary_loss: f.auxiliary_loss.then(|| AuxiliaryLossMetrics::new(geometry, settings)),
            temporal: f.temporal.then(|| TemporalMetrics::new(geometry, settings)),
            cross_layer: f.cross_layer.then(|| CrossLayerMetrics::new(geometry, settings)),
            segments: f.segments.then(|| SegmentMetrics::new(geometry, settings)),
            groups: f.groups.iter().map(group).collect(),
            contexts: f.contexts.then(|| ContextMetrics::new(geometry, settings)),
            vocabulary: tracked.map(|tracked| VocabularyMetrics::new(geometry, settings, tracked)),
        }
    }

    /// Adds the totals of another part of the run. On an error nothing has been added.
    ///
    /// # Errors
    /// [`MetricsError::FamiliesMismatch`], [`MetricsError::GeometryMismatch`], [`MetricsError::SettingsMismatch`], or
    /// [`MetricsError::MergeInsidePass`] if either side has a pass open.
    pub fn merge(&mut self, other: Self) -> Result<(), MetricsError> {
        if self.families != other.families {
            return Err(MetricsError::FamiliesMismatch);
        }
        // What is refused is refused here: the others have heard the same calls.
        self.core.merge(other.core)?;
        merge_each(&mut self.coactivation, other.coactivation, CoactivationMetrics::merge)?;
        merge_each(&mut self.auxiliary_loss, other.auxiliary_loss, |a, b| a.merge(&b))?;
        merge_each(&mut self.temporal, other.temporal, TemporalMetrics::merge)?;
        merge_each(&mut self.cross_layer, other.cross_layer, CrossLayerMetrics::merge)?;
        merge_each(&mut self.segments, other.segments, SegmentMetrics::merge)?;
        merge_each(&mut self.groups, other.groups, GroupMetrics::merge)?;
        merge_each(&mut self.contexts, other.contexts, ContextMetrics::merge)?;
        merge_each(&mut self.vocabulary, other.vocabulary, |a, b| a.merge(&b))
    }

    /// Every number, from the passes that have ended.
    pub fn report(&self) -> FullReport {
        FullReport {
            core: self.core.report(),
            coactivation: self.coactivation.as_ref().map(CoactivationMetrics::report),
            auxiliary_loss: self.auxiliary_loss.as_ref().and_then(AuxiliaryLossMetrics::report),
            temporal: self.temporal.as_ref().map(TemporalMetrics::report),
            cross_layer: self.cross_layer.as_ref().map(CrossLayerMetrics::report),
            segments: self.segments.as_ref().map(SegmentMetrics::report),
            groups: self.groups.iter().map(GroupMetrics::report).collect(),
            contexts: self.contexts.as_ref().map(ContextMetrics::report),
            vocabulary: self.vocabulary.as_ref().map(VocabularyMetrics::report),
        }
    }

    fn each(
        &mut self,
        mut call: impl FnMut(&mut dyn RoutingSink) -> Result<(), SinkError>,
    ) -> Result<(), SinkError> {
        call(&mut self.core)?;
        self.coactivation.as_mut().map_or(Ok(()), |sink| call(sink))?;
        self.auxiliary_loss.as_mut().map_or(Ok(()), |sink| call(sink))?;
        self.temporal.as_mut().map_or(Ok(()), |sink| call(sink))?;
        self.cross_layer.as_mut().map_or(Ok(()), |sink| call(sink))?;
        self.segments.as_mut().map_or(Ok(()), |sink| call(sink))?;
        self.groups.iter_mut().try_for_each(|sink| call(sink))?;
        self.contexts.as_mut().map_or(Ok(()), |sink| call(sink))?;
        self.vocabulary.as_mut().map_or(Ok(()), |sink| call(sink))
    }
}

fn merge_each<S>(
    ours: impl IntoIterator<Item: std::ops::DerefMut<Target = S>>,
    theirs: impl IntoIterator<Item = S>,
    merge: impl Fn(&mut S, S) -> Result<(), MetricsError>,
) -> Result<(), MetricsError> {
    ours.into_iter().zip(theirs).try_for_each(|(mut ours, theirs)| merge(&mut ours, theirs))
}

impl RoutingSink for MetricsSet {
    fn wants(&self) -> Planes {
        let losses = self.auxiliary_loss.as_ref().map(RoutingSink::wants).unwrap_or_default();
        self.core.wants().or(losses)
    }
    fn begin(&mut self, batch: &TokenBatch) -> Result<(), SinkError> {
        self.each(|sink| sink.begin(batch))
    }
    fn record(&mut self, view: &RoutingView<'_>) -> Result<(), SinkError> {
        self.each(|sink| sink.record(view))
    }
    fn end(&mut self) -> Result<(), SinkError> {
        self.each(|sink| sink.end())
    }
}
