//! Made-up texts with routing of their own, packed into passes at will.

use moetrace_metrics::{MetricsError, MetricsSettings, RoutingMetrics};
use moetrace_routing::{
    ExpertId, LayerIndex, MoeOrdinal, RoutingGeometry, RoutingPlanes, RoutingSink, RoutingView, SampleId,
    SinkError, Span, TokenBatch, TokenId,
};
use proptest::prelude::*;

/// What one layer chose for one token.
#[derive(Debug, Clone)]
pub(crate) struct Choice {
    pub(crate) experts: Vec<u16>,
    pub(crate) weights: Vec<f32>,
    pub(crate) margin: f32,
    pub(crate) gate_entropy: f32,
}

/// One sample: `choices` is `[L][tokens]`.
#[derive(Debug, Clone)]
pub(crate) struct Text {
    pub(crate) dataset: String,
    pub(crate) id: u32,
    pub(crate) bos: bool,
    pub(crate) choices: Vec<Vec<Choice>>,
}

impl Text {
    pub(crate) fn len(&self) -> usize {
        self.choices[0].len()
    }
}

/// L layers, numbered from 1 as after a dense first layer.
pub(crate) fn geometry(experts: usize, chosen: usize, layers: u16) -> RoutingGeometry {
    RoutingGeometry::new(experts, chosen, 4, (1..=layers).map(LayerIndex).collect()).unwrap()
}

/// The tokens of `texts` as one pass.
pub(crate) fn batch(texts: &[&Text]) -> TokenBatch {
    let mut spans = Vec::new();
    let mut start = 0;
    for text in texts {
        spans.push(Span {
            sample: SampleId(text.id),
            dataset: text.dataset.as_str().into(),
            label: None,
            start,
            len: text.len(),
            begins_with_bos: text.bos,
        });
        start += text.len();
    }
    TokenBatch::new(vec![TokenId(0); start], vec![0; start], spans).unwrap()
}

/// One layer of a pass.
pub(crate) struct Layer {
    ordinal: MoeOrdinal,
    rows: usize,
    experts: Vec<ExpertId>,
    weights: Vec<f32>,
    margins: Vec<f32>,
    gate_entropy: Vec<f32>,
}

impl Layer {
    pub(crate) fn new(texts: &[&Text], ordinal: MoeOrdinal) -> Self {
        let choices = || texts.iter().flat_map(|text| &text.choices[ordinal.index()]);
        Self {
            ordinal,
            rows: choices().count(),
            experts: choices().flat_map(|c| &c.experts).map(|&id| ExpertId(id)).collect(),
            weights: choices().flat_map(|c| c.weights.clone()).collect(),
            margins: choices().map(|c| c.margin).collect(),
            gate_entropy: choices().map(|c| c.gate_entropy).collect(),
        }
    }

    pub(crate) fn planes(&self) -> RoutingPlanes<'_> {
        RoutingPlanes {
            experts: &self.experts,
            weights: Some(&self.weights),
            margins: Some(&self.margins),
            gate_entropy: Some(&self.gate_entropy),
            ..RoutingPlanes::default()
        }
    }

    pub(crate) fn view(&self, geometry: &RoutingGeometry) -> RoutingView<'_> {
        RoutingView::new(geometry, self.ordinal, self.rows, self.planes()).unwrap()
    }
}

/// Plays `texts` as one pass.
pub(crate) fn play(
    geometry: &RoutingGeometry,
    texts: &[&Text],
    sink: &mut dyn RoutingSink,
) -> Result<(), SinkError> {
    sink.begin(&batch(texts))?;
    for ordinal in geometry.ordinals() {
        sink.record(&Layer::new(texts, ordinal).view(geometry))?;
    }
    sink.end()
}

/// All texts, one pass each.
pub(crate) fn fold(geometry: &RoutingGeometry, texts: &[Text], settings: &MetricsSettings) -> RoutingMetrics {
    let mut metrics = RoutingMetrics::new(geometry, settings);
    for text in texts {
        play(geometry, &[text], &mut metrics).unwrap();
    }
    metrics
}

/// A text whose every token chooses `experts` with equal weights in every layer.
pub(crate) fn constant_text(dataset: &str, id: u32, len: usize, layers: usize, experts: &[u16]) -> Text {
    let choice = Choice {
        experts: experts.to_vec(),
        weights: vec![1.0 / experts.len() as f32; experts.len()],
        margin: 0.5,
        gate_entropy: 1.0,
    };
    Text { dataset: dataset.to_owned(), id, bos: false, choices: vec![vec![choice; len]; layers] }
}

pub(crate) fn any_choice(experts: usize, chosen: usize) -> impl Strategy<Value = Choice> {
    let ids: Vec<u16> = (0..experts as u16).collect();
    (
        proptest::sample::subsequence(ids, chosen).prop_shuffle(),
        proptest::collection::vec(0f32..1.0, chosen),
        prop_oneof![Just(0f32), 0.001f32..1.0],
        0f32..6.0,
    )
        .prop_map(|(experts, mut weights, margin, gate_entropy)| {
            weights.sort_by(|a, b| b.total_cmp(a));
            Choice { experts, weights, margin, gate_entropy }
        })
}

/// Up to 12 texts of three data sets, 1 to 6 tokens each.
pub(crate) fn any_texts(experts: usize, chosen: usize, layers: usize) -> impl Strategy<Value = Vec<Text>> {
    let shapes = proptest::collection::vec((0usize..3, any::<bool>(), 1usize..7), 1..12);
    shapes
        .prop_flat_map(move |shapes| {
            let choices: Vec<_> = shapes
                .iter()
                .map(|&(_, _, len)| {
                    let layer = proptest::collection::vec(any_choice(experts, chosen), len);
                    proptest::collection::vec(layer, layers)
                })
                .collect();
            (Just(shapes), choices)
        })
        .prop_map(|(shapes, choices)| {
            let texts = (0u32..).zip(shapes).zip(choices);
            texts
                .map(|((id, (dataset, bos, _)), choices)| Text {
                    dataset: ["code", "mathematics", "prose"][dataset].to_owned(),
                    id,
                    bos,
                    choices,
                })
                .collect()
        })
}

/// Up to 5 texts of 1 to 80 tokens, in which an expert list of the token before often stays.
pub(crate) fn any_long_texts(
    experts: usize,
    chosen: usize,
    layers: usize,
) -> impl Strategy<Value = Vec<Text>> {
    let token = move || (any_choice(experts, chosen), proptest::bool::weighted(0.4));
    let layer = move |len| proptest::collection::vec(token(), len);
    let text = (1usize..80, any::<bool>())
        .prop_flat_map(move |(len, bos)| (proptest::collection::vec(layer(len), layers), Just(bos)));
    proptest::collection::vec(text, 1..6).prop_map(|texts| {
        let with_stays = |layer: Vec<(Choice, bool)>| {
            let mut tokens: Vec<Choice> = Vec::new();
            for (choice, stays) in layer {
                tokens.push(tokens.last().filter(|_| stays).cloned().unwrap_or(choice));
            }
            tokens
        };
        let texts = (0u32..).zip(texts).map(|(id, (layers, bos))| Text {
            dataset: ["code", "prose"][id as usize % 2].to_owned(),
            id,
            bos,
            choices: layers.into_iter().map(with_stays).collect(),
        });
        texts.collect()
    })
}

/// The expert sets of one layer of every text, without BOS rows, and the position of the first token.
pub(crate) fn counted_sets(texts: &[Text], ordinal: usize) -> Vec<(usize, Vec<Vec<u16>>)> {
    let of_text = |text: &Text| {
        let first = usize::from(text.bos);
        (first, text.choices[ordinal][first..].iter().map(|choice| choice.experts.clone()).collect())
    };
    texts.iter().map(of_text).collect()
}

/// The same texts with every expert renamed.
pub(crate) fn renamed(texts: &[Text], names: &[u16]) -> Vec<Text> {
    let mut texts = texts.to_vec();
    for choice in texts.iter_mut().flat_map(|text| &mut text.choices).flatten() {
        choice.experts.iter_mut().for_each(|id| *id = names[usize::from(*id)]);
    }
    texts
}

/// A run cut into three shards, listened to by one listener each in passes of `pass_len` texts, and merged in an order.
pub(crate) struct Split<'a> {
    pub(crate) texts: &'a [Text],
    /// The shard of each text.
    pub(crate) parts: &'a [usize],
    pub(crate) order: [usize; 3],
    pub(crate) pass_len: usize,
}

impl Split<'_> {
    pub(crate) fn merged<M: RoutingSink>(
        &self,
        geometry: &RoutingGeometry,
        new: impl Fn(&RoutingGeometry, &MetricsSettings) -> M,
        merge: impl Fn(&mut M, M) -> Result<(), MetricsError>,
    ) -> M {
        let empty = || new(geometry, &MetricsSettings::default());
        let mut merged = empty();
        for part in self.order {
            let mut shard = empty();
            for pass in shards(self.texts, self.parts, part).chunks(self.pass_len) {
                play(geometry, pass, &mut shard).unwrap();
            }
            merge(&mut merged, shard).unwrap();
        }
        merged
    }
}

/// Whatever texts `parts` gives each of three shards, in passes of `pass_len` texts.
pub(crate) fn shards<'a>(texts: &'a [Text], parts: &[usize], part: usize) -> Vec<&'a Text> {
    texts.iter().zip(parts).filter(|(_, p)| **p == part).map(|(text, _)| text).collect()
}
