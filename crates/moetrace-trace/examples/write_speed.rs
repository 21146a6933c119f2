//! Writes and reads made-up routing at DeepSeek-MoE-16B's geometry (27 layers, 64 experts, top-6) and prints
//! tokens a second and bytes a token: `cargo run --release -p moetrace-trace --example write_speed`.
#![expect(clippy::print_stdout, reason = "an example shows what it found")]

use std::error::Error;
use std::time::Instant;

use moetrace_routing::{
    ExpertId, LayerIndex, Planes, RoundWeights, RoutingGeometry, RoutingPlanes, RoutingSink, RoutingView,
    SampleId, SinkError, Span, TokenBatch, TokenId, WeightPrecision,
};
use moetrace_trace::{SampleRow, ShardReader, ShardWriter, TraceSettings, write_samples};

const EXPERTS: usize = 64;
const CHOSEN: usize = 6;
const LAYERS: u16 = 27;
const SAMPLE: usize = 512;
const SAMPLES_PER_PASS: usize = 16;
const PASSES: u32 = 32;
/// Passes of different rows: more rows than a page has, so that nothing repeats within one.
const DIFFERENT: usize = 4;

/// One layer's planes of one pass.
struct Layer {
    experts: Vec<ExpertId>,
    weights: Vec<f32>,
    margins: Vec<f32>,
    entropy: Vec<f32>,
}

/// Softmax routing over logits with a standard deviation near 1, skewed towards low expert numbers.
fn layer(rows: usize, state: &mut u64) -> Layer {
    let mut unit = || {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 40) as f32 / (1u64 << 24) as f32
    };
    let mut layer = Layer { experts: vec![], weights: vec![], margins: vec![], entropy: vec![] };
    for _ in 0..rows {
        let mut scores: Vec<(f32, u16)> = (0..EXPERTS as u16)
            .map(|e| ((unit() + unit() + unit() - 1.5) * 2.0 - f32::from(e) / 64.0, e))
            .map(|(logit, e)| (logit.exp(), e))
            .collect();
        let sum: f32 = scores.iter().map(|s| s.0).sum();
        for score in &mut scores {
            score.0 /= sum;
        }
        scores.sort_by(|a, b| b.0.total_cmp(&a.0));
        layer.experts.extend(scores[..CHOSEN].iter().map(|s| ExpertId(s.1)));
        layer.weights.extend(scores[..CHOSEN].iter().map(|s| s.0));
        layer.margins.push(scores[CHOSEN - 1].0 - scores[CHOSEN].0);
        layer.entropy.push(-scores.iter().map(|s| s.0 * s.0.log2()).sum::<f32>());
    }
    layer
}

fn batch(pass: u32) -> Result<TokenBatch, SinkError> {
    let rows = SAMPLE * SAMPLES_PER_PASS;
    let spans = (0..SAMPLES_PER_PASS).map(|i| Span {
        sample: SampleId(pass * SAMPLES_PER_PASS as u32 + i as u32),
        dataset: "speed".into(),
        label: None,
        start: i * SAMPLE,
        len: SAMPLE,
        begins_with_bos: true,
    });
    let ids = (0..rows as u32).map(|row| TokenId((row * 7919 + pass) % 102_400)).collect();
    Ok(TokenBatch::new(ids, (0..rows as u32).map(|row| row % SAMPLE as u32).collect(), spans.collect())?)
}

/// Hears everything and keeps nothing.
struct Silent;

impl RoutingSink for Silent {
    fn wants(&self) -> Planes {
        Planes::default()
    }
    fn begin(&mut self, _: &TokenBatch) -> Result<(), SinkError> {
        Ok(())
    }
    fn record(&mut self, _: &RoutingView<'_>) -> Result<(), SinkError> {
        Ok(())
    }
    fn end(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let geometry = RoutingGeometry::new(EXPERTS, CHOSEN, 2_048, (1..=LAYERS).map(LayerIndex).collect())?;
    let rows = SAMPLE * SAMPLES_PER_PASS;
    let mut state = 1;
    let passes: Vec<Vec<Layer>> =
        (0..DIFFERENT).map(|_| (0..LAYERS).map(|_| layer(rows, &mut state)).collect()).collect();
    let tokens = rows as f64 * f64::from(PASSES);
    let folder = std::env::temp_dir();
    let data = folder.join("moetrace_write_speed_data.parquet");
    let samples = folder.join("moetrace_write_speed_samples.parquet");
    for (precision, threads) in
        [(WeightPrecision::Half, 1), (WeightPrecision::Half, 2), (WeightPrecision::Full, 2)]
    {
        let settings = TraceSettings { threads, weights: precision, ..TraceSettings::default() };
        let begun = Instant::now();
        let writer = ShardWriter::new(&geometry, &settings, &"speed".into(), Vec::new(), None)?;
        let mut sink = RoundWeights::new(writer, precision);
        for pass in 0..PASSES {
            sink.begin(&batch(pass)?)?;
            for (ordinal, layer) in geometry.ordinals().zip(&passes[pass as usize % DIFFERENT]) {
                let planes = RoutingPlanes {
                    experts: &layer.experts,
                    weights: Some(&layer.weights),
                    margins: Some(&layer.margins),
                    gate_entropy: Some(&layer.entropy),
                    ..RoutingPlanes::default()
                };
                sink.record(&RoutingView::new(&geometry, ordinal, rows, planes)?)?;
            }
            sink.end()?;
        }
        let bytes = sink.into_inner().finish()?.data;
        let rate = tokens / begun.elapsed().as_secs_f64();
        let size = bytes.len() as f64 / tokens;
        println!("weights {precision:?}, {threads} threads: {rate:.0} tokens/s, {size:.1} bytes/token");
        std::fs::write(&data, bytes)?;
    }
    let rows: Vec<SampleRow> = (0..PASSES * SAMPLES_PER_PASS as u32).map(sample).collect();
    std::fs::write(&samples, write_samples(Vec::new(), "speed", &rows, &TraceSettings::default())?)?;
    let begun = Instant::now();
    ShardReader::open(&data, &samples)?.play(16_384, &mut Silent)?;
    println!("read and checked: {:.0} tokens/s", tokens / begun.elapsed().as_secs_f64());
    std::fs::remove_file(data)?;
    Ok(std::fs::remove_file(samples)?)
}

fn sample(id: u32) -> SampleRow {
    SampleRow {
        sample_id: SampleId(id),
        source_file: "speed.jsonl".to_owned(),
        source_row: u64::from(id),
        label: None,
        tokens: SAMPLE as u32,
        truncated: false,
        begins_with_bos: true,
        text_hash: String::new(),
        text: None,
    }
}
