//! Made-up routing with structure in it: some experts are favoured, data sets prefer theirs, neighbours are alike.

use moetrace_metrics::cross_layer::CrossLayerMetrics;
use moetrace_metrics::segments::SegmentMetrics;
use moetrace_metrics::temporal::TemporalMetrics;
use moetrace_metrics::{
    GroupBy, GroupMetrics, MetricsSettings, RoutingMetrics, TokenCounts, VocabularyMetrics,
};
use moetrace_report::{Coactivation, Context, DatasetFacts, ExpertCard, Fact, ReportedRun};
use moetrace_routing::{
    ExpertId, LayerIndex, Planes, RoutingGeometry, RoutingPlanes, RoutingSink, RoutingView, SampleId,
    SinkError, Span, TokenBatch, TokenId,
};

/// What is made up.
pub(crate) struct Shape {
    pub(crate) layers: u16,
    pub(crate) experts: usize,
    pub(crate) chosen: usize,
    pub(crate) samples: u32,
    pub(crate) length: usize,
    /// Token ids in use.
    pub(crate) words: u32,
}

impl Shape {
    /// The shape of DeepSeek-MoE-16B: layers 1 to 27, 6 of 64 experts.
    pub(crate) const DEEPSEEK: Self =
        Self { layers: 27, experts: 64, chosen: 6, samples: 24, length: 96, words: 20_000 };

    pub(crate) fn geometry(&self) -> anyhow::Result<RoutingGeometry> {
        Ok(RoutingGeometry::new(self.experts, self.chosen, 4, (1..=self.layers).map(LayerIndex).collect())?)
    }
}

/// The splitmix64 of Steele, Lea and Flood, 2014; any seed will do.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to 1.
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 24) as f32
    }
}

/// Plays made-up texts of the named data sets, one pass each, into a sink.
pub(crate) fn play(shape: &Shape, datasets: &[String], sink: &mut dyn RoutingSink) -> anyhow::Result<()> {
    let geometry = shape.geometry()?;
    let mut random = Random(7);
    for sample in 0..shape.samples {
        let which = sample as usize % datasets.len();
        let tokens =
            (0..shape.length).map(|_| TokenId((random.unit().powi(3) * shape.words as f32) as u32)).collect();
        let span = Span {
            sample: SampleId(sample),
            dataset: datasets[which].as_str().into(),
            // A data set without labels is one of many.
            label: (which > 0).then(|| format!("{} {}", datasets[which], sample % 4 / 2).into()),
            start: 0,
            len: shape.length,
            begins_with_bos: true,
        };
        sink.begin(&TokenBatch::new(tokens, (0..shape.length as u32).collect(), vec![span])?)?;
        for ordinal in geometry.ordinals() {
            let (experts, weights) = choices(shape, which, ordinal.index(), &mut random);
            let planes = RoutingPlanes {
                experts: &experts,
                weights: Some(&weights),
                margins: Some(&vec![0.01; shape.length]),
                gate_entropy: Some(&vec![(shape.experts as f32).log2() * 0.8; shape.length]),
                ..RoutingPlanes::default()
            };
            sink.record(&RoutingView::new(&geometry, ordinal, shape.length, planes)?)?;
        }
        sink.end()?;
    }
    Ok(())
}

fn choices(shape: &Shape, dataset: usize, layer: usize, random: &mut Random) -> (Vec<ExpertId>, Vec<f32>) {
    let bias = |expert: usize, of: u64| {
        Random(of * 1_000_003 + (layer * shape.experts + expert) as u64).next() as f32 / u64::MAX as f32
    };
    let mut carried = vec![0.0f32; shape.experts];
    let (mut experts, mut weights) = (Vec::new(), Vec::new());
    for _ in 0..shape.length {
        let mut scores: Vec<(f32, u16)> = (0..shape.experts)
            .map(|e| {
                carried[e] = 0.5 * carried[e] + 0.9 * random.unit();
                let group = if e % 8 == (carried[0] * 4.0) as usize { 0.15 } else { 0.0 };
                let liked = bias(e, 1) * 0.5 + bias(e, 2 + dataset as u64) * 0.7;
                (liked + carried[e] + group, e as u16)
            })
            .collect();
        scores.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        experts.extend(scores[..shape.chosen].iter().map(|s| ExpertId(s.1)));
        weights.extend((0..shape.chosen).map(|rank| 0.3 / (rank + 1) as f32));
    }
    (experts, weights)
}

/// Counts pairs the plain way: every token, every two of its experts.
struct Pairs {
    experts: usize,
    counts: Vec<Vec<u64>>,
}

impl RoutingSink for Pairs {
    fn wants(&self) -> Planes {
        Planes::default()
    }

    fn begin(&mut self, _: &TokenBatch) -> Result<(), SinkError> {
        Ok(())
    }

    fn record(&mut self, view: &RoutingView<'_>) -> Result<(), SinkError> {
        // The first row of every text is its BOS, which does not count.
        for row in view.experts().chunks_exact(view.chosen()).skip(1) {
            let mut chosen: Vec<usize> = row.iter().map(|e| usize::from(e.0)).collect();
            chosen.sort_unstable();
            for (n, &i) in chosen.iter().enumerate() {
                for &j in &chosen[n + 1..] {
                    let before: usize = (0..i).map(|i| self.experts - 1 - i).sum();
                    self.counts[view.ordinal().index()][before + j - i - 1] += 1;
                }
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

/// Pairs of every layer; experts from the last to the first are as good an order as any.
fn coactivation(shape: &Shape, datasets: &[String]) -> anyhow::Result<Vec<Coactivation>> {
    let pairs = vec![0; shape.experts * (shape.experts - 1) / 2];
    let mut sink = Pairs { experts: shape.experts, counts: vec![pairs; usize::from(shape.layers)] };
    play(shape, datasets, &mut sink)?;
    let order: Vec<u16> = (0..shape.experts as u16).rev().collect();
    let layers = (1..).zip(sink.counts);
    Ok(layers.map(|(layer, pairs)| Coactivation { layer, pairs, order: Some(order.clone()) }).collect())
}

/// Cards for every expert but the last of each layer, which was never chosen.
fn cards(shape: &Shape, datasets: &[String]) -> Vec<ExpertCard> {
    let mut random = Random(11);
    let mut ids =
        |n: usize| -> Vec<u32> { (0..n).map(|_| (random.next() % u64::from(shape.words)) as u32).collect() };
    let mut cards = Vec::new();
    for layer in 1..=shape.layers {
        for expert in 0..shape.experts as u16 - 1 {
            let tokens =
                ids(10).into_iter().zip(1..).map(|(id, rank)| (id, 12.5 / f64::from(rank))).collect();
            let context = |at: u32, tokens: Vec<u32>| Context {
                dataset: datasets[at as usize % datasets.len()].clone(),
                sample: u32::from(expert),
                position: 20 + at,
                tokens,
                at: 12,
                weight: Some(0.5),
            };
            let contexts = (0..4).map(|at| context(at, ids(17))).collect();
            cards.push(ExpertCard { layer, expert, tokens, contexts });
        }
    }
    cards
}

/// A run with these data sets; `word` gives every other string that a run of others could bring.
pub(crate) fn run(
    shape: &Shape,
    datasets: &[String],
    word: impl Fn(usize) -> String,
) -> anyhow::Result<ReportedRun> {
    let facts = ["model", "family", "weights (blake3)", "engine", "precision"];
    let dataset = |(i, name): (usize, &String)| DatasetFacts {
        name: name.clone(),
        rows_seen: 1_000,
        samples: 4,
        tokens: 400,
        truncated: 1,
        skipped: vec![(word(40 + i), 3)],
    };
    let (geometry, settings) = (shape.geometry()?, MetricsSettings::default());
    let mut metrics = RoutingMetrics::new(&geometry, &settings);
    let mut temporal = TemporalMetrics::new(&geometry, &settings);
    let mut cross_layer = CrossLayerMetrics::new(&geometry, &settings);
    let mut segments = SegmentMetrics::new(&geometry, &settings);
    let by = [GroupBy::Dataset, GroupBy::Label, GroupBy::Position];
    let mut groups = by.map(|by| GroupMetrics::new(&geometry, &settings, by));
    // Every id that is made up, so that each has a table.
    let mut counts = TokenCounts::default();
    counts.add(&(0..shape.words).map(TokenId).collect::<Vec<_>>());
    let mut vocabulary = VocabularyMetrics::new(&geometry, &settings, &counts.most_frequent(&geometry));
    let mut sinks: Vec<&mut dyn RoutingSink> =
        vec![&mut metrics, &mut temporal, &mut cross_layer, &mut segments, &mut vocabulary];
    sinks.extend(groups.iter_mut().map(|sink| sink as &mut dyn RoutingSink));
    // The same texts to each: they are made from a seed.
    for sink in sinks {
        play(shape, datasets, sink)?;
    }
    Ok(ReportedRun {
        name: word(0),
        model: word(1),
        facts: facts.iter().enumerate().map(|(i, name)| Fact::new(*name, word(2 + i))).collect(),
        settings: vec![Fact { name: word(8), value: word(9), source: word(10) }],
        datasets: datasets.iter().enumerate().map(dataset).collect(),
        notes: vec![word(11)],
        compared: vec![Fact::new(word(12), word(13)), Fact::new(word(14), word(15))],
        metrics: metrics.report(),
        groups: groups.iter().map(GroupMetrics::report).collect(),
        temporal: Some(temporal.report()),
        cross_layer: Some(cross_layer.report()),
        segments: Some(segments.report()),
        coactivation: coactivation(shape, datasets)?,
        vocabulary: Some(vocabulary.report()),
        cards: cards(shape, datasets),
        tokens: (0..shape.words).map(|id| (id, word(12 + id as usize))).collect(),
    })
}
