//! What a report is made of: plain values, so that whoever has numbers can draw them.

use std::collections::BTreeMap;

use moetrace_metrics::coactivation::{CoactivationReport, LayerCoactivation};
use moetrace_metrics::contexts::ContextsReport;
use moetrace_metrics::cross_layer::CrossLayerReport;
use moetrace_metrics::fidelity::FidelityReport;
use moetrace_metrics::segments::SegmentReport;
use moetrace_metrics::temporal::TemporalReport;
use moetrace_metrics::vocabulary::{Keyword, VocabularyLayer, VocabularyReport};
use moetrace_metrics::{GroupsReport, MetricsReport};

/// One run, or two side by side.
#[derive(Debug, Clone, Copy)]
pub struct ReportInput<'a> {
    /// The run that the page is about.
    pub run: &'a ReportedRun,
    /// A second one to hold beside it, of any model.
    pub other: Option<&'a ReportedRun>,
    /// How often the second routed like the first; absent unless both ran over the same tokens.
    pub fidelity: Option<&'a FidelityReport>,
}

impl<'a> ReportInput<'a> {
    /// The runs, each with what tells its lines from another's: nothing where there is one.
    pub(crate) fn lettered(&self) -> Vec<(&'static str, &'a ReportedRun)> {
        match self.other {
            Some(other) => vec![("A: ", self.run), ("B: ", other)],
            None => vec![("", self.run)],
        }
    }

    /// What to put before a line of the first run.
    pub(crate) fn letter(&self) -> &'static str {
        self.lettered()[0].0
    }

    /// A text of each run, said once where it is the same.
    pub(crate) fn each(&self, text: impl Fn(&ReportedRun) -> String) -> String {
        let first = text(self.run);
        match self.other.map(&text).filter(|other| *other != first) {
            Some(other) => format!("A: {first}, B: {other}"),
            None => first,
        }
    }
}

/// A run's numbers and where they come from.
#[derive(Debug, Clone, PartialEq)]
pub struct ReportedRun {
    /// What the run is called: its folder, or a name of the user's.
    pub name: String,
    /// The model's name as the user gave it.
    pub model: String,
    /// Facts about model, computation and tokens, in the order they are shown.
    pub facts: Vec<Fact>,
    /// Settings with their values and who set them.
    pub settings: Vec<Fact>,
    /// The data sets as they were sampled.
    pub datasets: Vec<DatasetFacts>,
    /// What a reader must know before the numbers, such as shards that are missing.
    pub notes: Vec<String>,
    /// What is held against a second run's: the same names in both, in the same order.
    pub compared: Vec<Fact>,
    /// The numbers.
    pub metrics: MetricsReport,
    /// Loads by data set, label and position, as far as they were counted.
    pub groups: Vec<GroupsReport>,
    /// How alike the choices of near tokens are, where it was counted.
    pub temporal: Option<TemporalReport>,
    /// What one layer's experts tell about the next layer's, where it was counted.
    pub cross_layer: Option<CrossLayerReport>,
    /// How well a few experts serve a stretch of tokens, where it was counted.
    pub segments: Option<SegmentReport>,
    /// How often experts were chosen together; one for each layer, or none.
    pub coactivation: Vec<Coactivation>,
    /// Loads by token id, where they were counted.
    pub vocabulary: Option<VocabularyReport>,
    /// What each expert serves, as far as it was counted.
    pub cards: Vec<ExpertCard>,
    /// Strings of token ids; empty where a run keeps none.
    pub tokens: BTreeMap<u32, String>,
}

/// How often the experts of one layer were chosen for the same token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coactivation {
    /// The model's own (absolute) number of the layer.
    pub layer: u16,
    /// Tokens that chose both of each unordered pair, ascending: (0, 1), (0, 2), ... `[E (E - 1) / 2]`.
    pub pairs: Vec<u64>,
    /// The experts in an order that brings like to like, a permutation of `0..E`; none where none was computed.
    pub order: Option<Vec<u16>>,
}

impl Coactivation {
    /// The layers of which pairs were kept.
    pub fn of_report(report: &CoactivationReport) -> Vec<Self> {
        let kept = report.layers.iter().filter(|layer| !layer.pair_counts.is_empty());
        let of_layer = |layer: &LayerCoactivation| Self {
            layer: layer.layer,
            pairs: layer.pair_counts.clone(),
            order: layer.clustering.as_ref().map(|clustering| clustering.leaf_order.clone()),
        };
        kept.map(of_layer).collect()
    }
}

/// The tokens and places that tell most about one expert.
#[derive(Debug, Clone, PartialEq)]
pub struct ExpertCard {
    /// The model's own (absolute) number of the layer.
    pub layer: u16,
    /// The expert.
    pub expert: u16,
    /// Token ids with the statistic that they are chosen by, highest first.
    pub tokens: Vec<(u32, f64)>,
    /// Where the expert weighed most.
    pub contexts: Vec<Context>,
}

impl ExpertCard {
    /// One for each expert of each layer, from what was counted by token id and, where weights are recorded, from its
    /// contexts.
    pub fn of_reports(vocabulary: &VocabularyReport, contexts: Option<&ContextsReport>) -> Vec<Self> {
        let of_layer = |(ordinal, layer): (usize, &VocabularyLayer)| {
            let found = contexts.and_then(|report| Some((report, report.layers.get(ordinal)?)));
            let of_expert = |(expert, keywords): (usize, &Vec<Keyword>)| Self {
                layer: layer.layer,
                expert: expert as u16,
                tokens: keywords.iter().map(|k| (k.token, f64::from(k.z))).collect(),
                contexts: found.map_or_else(Vec::new, |(report, layer)| {
                    let own = layer.experts.get(expert).map_or(&[][..], Vec::as_slice);
                    own.iter().map(|context| Context::of_report(context, &report.datasets)).collect()
                }),
            };
            layer.keywords.iter().enumerate().map(of_expert).collect::<Vec<Self>>()
        };
        vocabulary.layers.iter().enumerate().flat_map(of_layer).collect()
    }
}

impl Context {
    fn of_report(context: &moetrace_metrics::contexts::Context, datasets: &[String]) -> Self {
        Self {
            dataset: datasets.get(context.dataset as usize).cloned().unwrap_or_default(),
            sample: context.sample,
            position: context.position,
            tokens: context.tokens.clone(),
            at: context.at as usize,
            weight: Some(context.weight),
        }
    }
}

/// A stretch of text around a token.
#[derive(Debug, Clone, PartialEq)]
pub struct Context {
    /// The data set it is from.
    pub dataset: String,
    /// The sample's number in its source.
    pub sample: u32,
    /// The token's position in the sample.
    pub position: u32,
    /// Token ids, the one in question among them.
    pub tokens: Vec<u32>,
    /// Which of `tokens` it is.
    pub at: usize,
    /// The expert's weight there; absent where none is recorded.
    pub weight: Option<f32>,
}

/// A name and a value, both shown as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// What it is.
    pub name: String,
    /// The value.
    pub value: String,
    /// Who said so; empty where that goes without saying.
    pub source: String,
}

impl Fact {
    /// A fact without a source.
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), value: value.into(), source: String::new() }
    }
}

/// One data set as it was sampled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetFacts {
    /// Its name.
    pub name: String,
    /// Rows read.
    pub rows_seen: u64,
    /// Texts recorded.
    pub samples: u64,
    /// Tokens recorded, BOS included.
    pub tokens: u64,
    /// Texts cut at the length limit.
    pub truncated: u64,
    /// Rows left out, with the reason.
    pub skipped: Vec<(String, u64)>,
}
