//! How fast each listener counts on one core, and all of them together, at the geometry of `DeepSeek-MoE-16B`: 27 layers, 64
//! experts, 6 chosen, texts of 512 tokens, 4 a pass. Of 100 passes the fastest counts, since a pass is short enough to
//! run undisturbed on a machine that does other things.
//!
//! ```sh
//! cargo run --release -p moetrace-metrics --example sequence_speed
//! ```

use std::time::Instant;

use anyhow::Result;
use moetrace_metrics::{
    CoactivationMetrics, ContextMetrics, CrossLayerMetrics, ExpertCounts, GroupBy, GroupMetrics,
    MetricsFamilies, MetricsSet, MetricsSettings, RoutingMetrics, SegmentMetrics, TemporalMetrics,
    TokenCounts, VocabularyMetrics,
};
use moetrace_routing::{
    ExpertId, LayerIndex, MoeOrdinal, RoutingGeometry, RoutingPlanes, RoutingSink, RoutingView, SampleId,
    Span, TokenBatch, TokenId,
};

const LAYERS: u16 = 27;
const EXPERTS: usize = 64;
const CHOSEN: usize = 6;
const TEXTS: usize = 4;
const TOKENS: usize = 512;
const PASSES: usize = 100;

const VOCABULARY: f64 = 100_000.0;

/// Knuth's MMIX generator: the numbers only have to be spread.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Skewed choices, each token keeping an expert of the one before with probability 0.3.
fn choices(random: &mut Random, rows: usize) -> Vec<ExpertId> {
    let mut all: Vec<ExpertId> = Vec::with_capacity(rows * CHOSEN);
    for row in 0..rows {
        let mut ids: Vec<ExpertId> = Vec::with_capacity(CHOSEN);
        if row % TOKENS > 0 {
            let before = &all[(row - 1) * CHOSEN..];
            ids.extend(before.iter().filter(|_| random.next() < 0.3));
        }
        while ids.len() < CHOSEN {
            let id = ExpertId((random.next().powf(1.3) * EXPERTS as f64) as u16);
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        all.extend(ids);
    }
    all
}

fn time(name: &str, sink: &mut dyn RoutingSink, batch: &TokenBatch, views: &[RoutingView<'_>]) -> Result<()> {
    let mut seconds = f64::INFINITY;
    for _ in 0..PASSES {
        let begun = Instant::now();
        sink.begin(batch)?;
        for view in views {
            sink.record(view)?;
        }
        sink.end()?;
        seconds = seconds.min(begun.elapsed().as_secs_f64());
    }
    let tokens = batch.len() as f64;
    let per_layer = seconds / tokens / f64::from(LAYERS) * 1e9;
    println!("{name:<28} {:>8.0} tokens/s, {per_layer:.0} ns per token and layer", tokens / seconds);
    Ok(())
}

fn main() -> Result<()> {
    let geometry = RoutingGeometry::new(EXPERTS, CHOSEN, 1, (1..=LAYERS).map(LayerIndex).collect())?;
    let rows = TEXTS * TOKENS;
    let spans = (0..TEXTS).map(|text| Span {
        sample: SampleId(text as u32),
        dataset: "made-up".into(),
        label: Some(["odd", "even"][text % 2].into()),
        start: text * TOKENS,
        len: TOKENS,
        begins_with_bos: true,
    });
    let positions = (0..rows).map(|row| (row % TOKENS) as u32).collect();
    let mut random = Random(1);
    // Ids as frequent as the inverse of their rank, as words are.
    let ids: Vec<TokenId> = (0..rows).map(|_| TokenId(VOCABULARY.powf(random.next()) as u32)).collect();
    let batch = TokenBatch::new(ids, positions, spans.collect())?;
    let layers: Vec<_> = (0..LAYERS).map(|_| choices(&mut random, rows)).collect();
    let of_row = |_| {
        let scale = 0.5 + 0.5 * random.next() as f32;
        [0.4, 0.2, 0.1, 0.07, 0.05, 0.03].map(|weight: f32| weight * scale)
    };
    let weights: Vec<f32> = (0..rows).flat_map(of_row).collect();
    let numbers = vec![0.5; rows];
    let views = layers.iter().zip(0..).map(|(experts, ordinal)| {
        let planes = RoutingPlanes {
            experts,
            weights: Some(&weights),
            margins: Some(&numbers),
            gate_entropy: Some(&numbers),
            ..RoutingPlanes::default()
        };
        RoutingView::new(&geometry, MoeOrdinal(ordinal), rows, planes)
    });
    let views: Vec<RoutingView<'_>> = views.collect::<Result<_, _>>()?;
    time_all(&geometry, &batch, &views)
}

fn time_all(geometry: &RoutingGeometry, batch: &TokenBatch, views: &[RoutingView<'_>]) -> Result<()> {
    let settings = MetricsSettings::default();
    time("loads, pairs, transitions", &mut ExpertCounts::new(geometry, &settings)?, batch, views)?;
    time("core", &mut RoutingMetrics::new(geometry, &settings), batch, views)?;
    let mut coactivation = CoactivationMetrics::new(geometry, &settings);
    time("co-activation", &mut coactivation, batch, views)?;
    let begun = Instant::now();
    let report = coactivation.report();
    println!(
        "co-activation's report, {} tokens shuffled: {:.2} s",
        report.shuffled_tokens,
        begun.elapsed().as_secs_f64()
    );
    time("temporal", &mut TemporalMetrics::new(geometry, &settings), batch, views)?;
    time("cross-layer", &mut CrossLayerMetrics::new(geometry, &settings), batch, views)?;
    for by in [GroupBy::Dataset, GroupBy::Label, GroupBy::Position] {
        time(&format!("by {by:?}"), &mut GroupMetrics::new(geometry, &settings, by), batch, views)?;
    }
    let mut counts = TokenCounts::default();
    counts.add(batch.token_ids());
    let mut vocabulary = VocabularyMetrics::new(geometry, &settings, &counts.most_frequent(geometry));
    time("vocabulary", &mut vocabulary, batch, views)?;
    let begun = Instant::now();
    let report = vocabulary.report();
    println!("vocabulary's report over {} ids: {:.2} s", report.input_ids, begun.elapsed().as_secs_f64());
    let tracked = Some(counts.most_frequent(geometry));
    let families = MetricsFamilies { contexts: true, vocabulary: tracked, ..MetricsFamilies::of_routing() };
    time("everything", &mut MetricsSet::new(geometry, &settings, &families), batch, views)?;
    time("contexts", &mut ContextMetrics::new(geometry, &settings), batch, views)?;
    let mut segments = SegmentMetrics::new(geometry, &settings);
    time("segments", &mut segments, batch, views)?;
    let begun = Instant::now();
    let report = segments.report();
    println!("segments' report over {} tokens: {:.2} s", report.subset_tokens, begun.elapsed().as_secs_f64());
    Ok(())
}
