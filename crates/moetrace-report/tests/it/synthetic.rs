//! Made-up routing with structure in it: some experts are favoured, data sets prefer theirs, neighbours are alike.

use moetrace_metrics::{MetricsReport, MetricsSettings, RoutingMetrics};
use moetrace_report::{DatasetFacts, Fact, ReportedRun};
use moetrace_routing::{
    ExpertId, LayerIndex, RoutingGeometry, RoutingPlanes, RoutingSink, RoutingView, SampleId, Span,
    TokenBatch, TokenId,
};

/// What is made up.
pub(crate) struct Shape {
    pub(crate) layers: u16,
    pub(crate) experts: usize,
    pub(crate) chosen: usize,
    pub(crate) samples: u32,
    pub(crate) length: usize,
}

impl Shape {
    /// The shape of DeepSeek-MoE-16B: layers 1 to 27, 6 of 64 experts.
    pub(crate) const DEEPSEEK: Self = Self { layers: 27, experts: 64, chosen: 6, samples: 24, length: 96 };

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
        let tokens = (0..shape.length).map(|_| TokenId((random.unit().powi(3) * 40.0) as u32)).collect();
        let span = Span {
            sample: SampleId(sample),
            dataset: datasets[which].as_str().into(),
            label: None,
            start: 0,
            len: shape.length,
            begins_with_bos: true,
        };
        sink.begin(&TokenBatch::new(tokens, (0..shape.length as u32).collect(), vec![span])?)?;
        for ordinal in geometry.ordinals() {
            let (experts, weights) = choices(shape, which, ordinal.index(), &mut random);
            let planes = RoutingPlanes {
                experts: &experts,
                weights: &weights,
                margins: &vec![0.01; shape.length],
                gate_entropy: &vec![(shape.experts as f32).log2() * 0.8; shape.length],
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

/// The numbers of made-up texts.
pub(crate) fn metrics(shape: &Shape, datasets: &[String]) -> anyhow::Result<MetricsReport> {
    let mut metrics = RoutingMetrics::new(&shape.geometry()?, &MetricsSettings::default());
    play(shape, datasets, &mut metrics)?;
    Ok(metrics.report())
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
    Ok(ReportedRun {
        name: word(0),
        model: word(1),
        facts: facts.iter().enumerate().map(|(i, name)| Fact::new(*name, word(2 + i))).collect(),
        settings: vec![Fact { name: word(8), value: word(9), source: word(10) }],
        datasets: datasets.iter().enumerate().map(dataset).collect(),
        notes: vec![word(11)],
        metrics: metrics(shape, datasets)?,
        tokens: (0..40).map(|id| (id, word(12 + id as usize))).collect(),
    })
}
