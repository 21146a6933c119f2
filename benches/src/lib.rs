//! In: nothing but a seed.
//! Out: inputs of the benches: routing, texts, checkpoints, all made here.
//! Holds: a generator for each, what a pass computes, limits of GPUs; benches/ has one bench per stage of the flow.
//! Not here: measurements of single functions; those belong beside the code they measure.

pub mod work;

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;
use moetrace_routing::{
    ExpertId, LayerIndex, RoutingGeometry, RoutingPlanes, RoutingSink, RoutingView, SampleId, SinkError,
    Span, TokenBatch, TokenId, round_to_half_precision,
};

/// The geometry of DeepSeek-MoE-16B: 27 routed layers, 6 of 64 experts.
///
/// # Errors
/// None that can happen; the type says so.
pub fn deepseek_geometry() -> Result<RoutingGeometry> {
    Ok(RoutingGeometry::new(64, 6, 2048, (1..28).map(LayerIndex).collect())?)
}

/// `SplitMix64` (Steele, Lea and Flood 2014).
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// In [0, 1).
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 24) as f32
    }
}

/// Bell-shaped bf16 values of the size of weights.
pub fn seeded_weights(elements: usize) -> Vec<half::bf16> {
    let mut random = Random(11);
    let mut value = || (0..4).map(|_| random.unit()).sum::<f32>() - 2.0;
    (0..elements).map(|_| half::bf16::from_f32(value() * 0.02)).collect()
}

/// Recorded routing of one pass, ready to be played any number of times.
#[derive(Debug)]
pub struct Recorded {
    /// The shape.
    pub geometry: RoutingGeometry,
    /// The tokens.
    pub batch: TokenBatch,
    layers: Vec<Layer>,
}

#[derive(Debug)]
struct Layer {
    experts: Vec<ExpertId>,
    weights: Vec<f32>,
    margins: Vec<f32>,
    gate_entropy: Vec<f32>,
}

impl Recorded {
    /// `samples` texts of `length` tokens: a softmax over skewed random logits, its top K, its entropy.
    ///
    /// # Errors
    /// What the waist refuses; nothing made here.
    pub fn new(geometry: RoutingGeometry, samples: usize, length: usize, seed: u64) -> Result<Self> {
        let mut random = Random(seed);
        let n = samples * length;
        let spans = (0..samples).map(|i| Span {
            sample: SampleId(i as u32),
            dataset: "bench".into(),
            label: None,
            start: i * length,
            len: length,
            begins_with_bos: true,
        });
        let batch = TokenBatch::new(
            (0..n).map(|_| TokenId((random.bits() % 102_400) as u32)).collect(),
            (0..n).map(|i| (i % length) as u32).collect(),
            spans.collect(),
        )?;
        let layers = geometry.layers().iter().map(|_| Layer::new(&geometry, n, &mut random)).collect();
        Ok(Self { geometry, batch, layers })
    }

    /// Plays the pass to a listener.
    ///
    /// # Errors
    /// The listener's.
    pub fn play(&self, sink: &mut dyn RoutingSink) -> Result<(), SinkError> {
        sink.begin(&self.batch)?;
        for (ordinal, layer) in self.geometry.ordinals().zip(&self.layers) {
            let planes = RoutingPlanes {
                experts: &layer.experts,
                weights: Some(&layer.weights),
                margins: Some(&layer.margins),
                gate_entropy: Some(&layer.gate_entropy),
                ..RoutingPlanes::default()
            };
            sink.record(&RoutingView::new(&self.geometry, ordinal, self.batch.len(), planes)?)?;
        }
        sink.end()
    }
}

impl Layer {
    fn new(geometry: &RoutingGeometry, n: usize, random: &mut Random) -> Self {
        let (e, k) = (geometry.experts(), geometry.chosen());
        let mut layer = Self { experts: vec![], weights: vec![], margins: vec![], gate_entropy: vec![] };
        let bias: Vec<f32> = (0..e).map(|_| random.unit()).collect();
        let mut order: Vec<usize> = (0..e).collect();
        for _ in 0..n {
            // The sum of three uniform numbers is bell-shaped enough, and cheap.
            let raised: Vec<f32> = bias
                .iter()
                .map(|b| (b + 1.5 * (random.unit() + random.unit() + random.unit())).exp())
                .collect();
            let sum: f32 = raised.iter().sum();
            let p: Vec<f32> = raised.iter().map(|x| x / sum).collect();
            order.sort_unstable_by(|&a, &b| p[b].total_cmp(&p[a]).then(a.cmp(&b)));
            layer.experts.extend(order[..k].iter().map(|&i| ExpertId(i as u16)));
            layer.weights.extend(order[..k].iter().map(|&i| round_to_half_precision(p[i])));
            layer.margins.push(p[order[k - 1]] - p[order[k]]);
            layer.gate_entropy.push(-p.iter().map(|x| x * x.log2()).sum::<f32>());
        }
        layer
    }
}

/// `rows` lines of JSON with texts of some 300 words.
///
/// # Errors
/// Those of the disk.
pub fn write_texts(path: &Path, rows: usize, seed: u64) -> Result<()> {
    const WORDS: [&str; 16] = [
        "river", "theorem", "the", "of", "and", "lantern", "market", "seven", "begins", "under", "slowly",
        "a", "model", "routes", "every", "token",
    ];
    let mut random = Random(seed);
    let mut text = String::new();
    for row in 0..rows {
        let words: Vec<&str> = (0..300).map(|_| WORDS[(random.bits() % 16) as usize]).collect();
        writeln!(text, "{{\"text\": \"{row} {}\"}}", words.join(" "))?;
    }
    std::fs::write(path, text)?;
    Ok(())
}
