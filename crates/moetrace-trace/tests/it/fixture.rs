//! Made-up routing of any geometry, the same for the same seed, and a sink that remembers what it heard.

use std::path::PathBuf;

use moetrace_routing::{
    ExpertId, HiddenRows, LayerIndex, Name, Planes, RoutingGeometry, RoutingPlanes, RoutingSink, RoutingView,
    SampleId, SinkError, Span, TokenBatch, TokenId, round_to_half_precision,
};
use moetrace_trace::{SampleRow, ShardWriter, TraceColumns, TraceError, TraceSettings, WrittenShard};

/// A small linear congruential generator (Knuth's MMIX constants): enough to fill planes with.
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }
    pub(crate) fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32
    }
    pub(crate) fn unit(&mut self) -> f32 {
        (self.next() >> 8) as f32 / (1 << 23) as f32
    }
}

/// All rows of a shard, every plane of them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Recording {
    pub(crate) geometry: RoutingGeometry,
    pub(crate) spans: Vec<Span>,
    pub(crate) token_ids: Vec<TokenId>,
    pub(crate) positions: Vec<u32>,
    pub(crate) layers: Vec<Layer>,
    pub(crate) nll: Vec<f32>,
    /// Rows whose hidden states are recorded, ascending.
    pub(crate) hidden_rows: Vec<u32>,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Layer {
    pub(crate) experts: Vec<ExpertId>,
    pub(crate) weights: Vec<f32>,
    pub(crate) margins: Vec<f32>,
    pub(crate) gate_entropy: Vec<f32>,
    pub(crate) logits: Vec<f32>,
    pub(crate) shared_gate: Vec<f32>,
    pub(crate) hidden: Vec<f32>,
}

pub(crate) fn geometry(experts: usize, chosen: usize, layers: u16) -> RoutingGeometry {
    // Layer 0 is dense, as in DeepSeek-MoE.
    RoutingGeometry::new(experts, chosen, 8, (1..=layers).map(LayerIndex).collect()).unwrap()
}

impl Recording {
    pub(crate) fn new(geometry: &RoutingGeometry, lengths: &[usize], seed: u64) -> Self {
        let mut numbers = Numbers::new(seed);
        let mut start = 0;
        let spans: Vec<Span> = lengths
            .iter()
            .enumerate()
            .map(|(index, &len)| {
                let span = Span {
                    sample: SampleId(index as u32 * 3 + 1),
                    dataset: "letters".into(),
                    label: (index % 2 == 0).then(|| Name::from(format!("label {}", index % 3))),
                    start,
                    len,
                    begins_with_bos: index % 3 != 0,
                };
                start += len;
                span
            })
            .collect();
        let n = start;
        let (e, d) = (geometry.experts(), geometry.hidden());
        let hidden_rows: Vec<u32> = (0..n as u32).filter(|row| row % 5 == 2).collect();
        let mut layers = Vec::new();
        for _ in geometry.layers() {
            let mut l = layer(geometry, n, &mut numbers);
            l.logits = (0..n * e).map(|_| numbers.unit() * 8.0 - 4.0).collect();
            l.shared_gate = (0..n).map(|_| numbers.unit()).collect();
            l.hidden = (0..hidden_rows.len() * d).map(|_| numbers.unit() - 0.5).collect();
            layers.push(l);
        }
        let first: Vec<usize> = spans.iter().map(|span| span.start).collect();
        Self {
            geometry: geometry.clone(),
            token_ids: (0..n).map(|_| TokenId(numbers.next() % 102_400)).collect(),
            positions: spans.iter().flat_map(|span| 0..span.len as u32).collect(),
            nll: (0..n)
                .map(|row| if first.contains(&row) { f32::NAN } else { numbers.unit() * 9.0 })
                .collect(),
            spans,
            layers,
            hidden_rows,
        }
    }

    /// Plays all samples into `sink`, `samples_per_pass` at a time.
    pub(crate) fn play(&self, samples_per_pass: usize, sink: &mut dyn RoutingSink) -> Result<(), SinkError> {
        self.spans.chunks(samples_per_pass).try_for_each(|spans| self.play_pass(spans, sink))
    }

    fn play_pass(&self, spans: &[Span], sink: &mut dyn RoutingSink) -> Result<(), SinkError> {
        let (k, e, d) = (self.geometry.chosen(), self.geometry.experts(), self.geometry.hidden());
        let wants = sink.wants();
        let base = spans[0].start;
        let rows = base..spans.last().unwrap().rows().end;
        let n = rows.len();
        let own: Vec<Span> =
            spans.iter().cloned().map(|span| Span { start: span.start - base, ..span }).collect();
        let batch = TokenBatch::new(
            self.token_ids[rows.clone()].to_vec(),
            self.positions[rows.clone()].to_vec(),
            own,
        )?;
        let at = |row: usize| self.hidden_rows.partition_point(|&r| (r as usize) < row);
        let hidden_at = at(rows.start)..at(rows.end);
        let hidden_rows: Vec<u32> =
            self.hidden_rows[hidden_at.clone()].iter().map(|row| row - base as u32).collect();
        let batch = batch.with_hidden_rows(hidden_rows.clone())?;
        sink.begin(&batch)?;
        for (ordinal, layer) in self.geometry.ordinals().zip(&self.layers) {
            let last = ordinal.index() + 1 == self.layers.len();
            let planes = RoutingPlanes {
                experts: &layer.experts[rows.start * k..rows.end * k],
                weights: Some(&layer.weights[rows.start * k..rows.end * k]),
                margins: Some(&layer.margins[rows.clone()]),
                gate_entropy: Some(&layer.gate_entropy[rows.clone()]),
                logits: wants.logits.then(|| &layer.logits[rows.start * e..rows.end * e]),
                shared_gate: wants.shared_gate.then(|| &layer.shared_gate[rows.clone()]),
                hidden: wants.hidden.then(|| HiddenRows {
                    rows: &hidden_rows,
                    values: &layer.hidden[hidden_at.start * d..hidden_at.end * d],
                }),
                nll: (wants.nll && last).then(|| &self.nll[rows.clone()]),
            };
            sink.record(&RoutingView::new(&self.geometry, ordinal, n, planes)?)?;
        }
        sink.end()
    }

    pub(crate) fn samples(&self) -> Vec<SampleRow> {
        let row = |span: &Span| SampleRow {
            sample_id: span.sample,
            source_file: "letters.jsonl".to_owned(),
            source_row: u64::from(span.sample.0),
            label: span.label.as_ref().map(ToString::to_string),
            tokens: span.len as u32,
            truncated: span.len > 100,
            begins_with_bos: span.begins_with_bos,
            text_hash: format!("{:016x}", span.sample.0),
            text: Some(format!("text of sample {}", span.sample)),
        };
        self.spans.iter().map(row).collect()
    }

    pub(crate) fn write(&self, settings: &TraceSettings, samples_per_pass: usize) -> WrittenShard<Vec<u8>> {
        let hidden = settings.columns.hidden.then(Vec::new);
        let mut writer =
            ShardWriter::new(&self.geometry, settings, &"letters".into(), Vec::new(), hidden).unwrap();
        self.play(samples_per_pass, &mut writer).unwrap();
        writer.finish().unwrap()
    }

    /// Writes the shard into `dir`: paths of the tokens and of the samples table.
    pub(crate) fn write_files(
        &self,
        dir: &tempfile::TempDir,
        settings: &TraceSettings,
    ) -> (PathBuf, PathBuf) {
        let (data, samples) = (dir.path().join("data.parquet"), dir.path().join("samples.parquet"));
        std::fs::write(&data, self.write(settings, 2).data).unwrap();
        let bytes = moetrace_trace::write_samples(Vec::new(), "letters", &self.samples(), settings).unwrap();
        std::fs::write(&samples, bytes).unwrap();
        (data, samples)
    }
}

fn layer(geometry: &RoutingGeometry, n: usize, numbers: &mut Numbers) -> Layer {
    let (e, k) = (geometry.experts(), geometry.chosen());
    let mut layer = Layer::default();
    let mut all: Vec<u16> = (0..e).map(|id| id as u16).collect();
    for _ in 0..n {
        for rank in 0..k {
            let other = rank + numbers.next() as usize % (e - rank);
            all.swap(rank, other);
        }
        layer.experts.extend(all[..k].iter().map(|&id| ExpertId(id)));
        let mut weights: Vec<f32> = (0..k).map(|_| round_to_half_precision(numbers.unit())).collect();
        weights.sort_by(|a, b| b.total_cmp(a));
        layer.weights.extend(weights);
        layer.margins.push(numbers.unit() / 16.0);
        layer.gate_entropy.push(numbers.unit() * (e as f32).log2());
    }
    layer
}

/// Every optional column.
pub(crate) fn all_columns() -> TraceColumns {
    TraceColumns {
        text: true,
        logits: true,
        shared_gate: true,
        nll: true,
        hidden: true,
        ..TraceColumns::default()
    }
}

/// Remembers everything, pass after pass, but for how it was cut into passes.
pub(crate) struct Memory {
    pub(crate) heard: Recording,
    pub(crate) passes: usize,
    wants: Planes,
    batch_rows: usize,
}

impl Memory {
    pub(crate) fn new(geometry: &RoutingGeometry, wants: Planes) -> Self {
        Self { heard: Recording::new(geometry, &[], 0), passes: 0, wants, batch_rows: 0 }
    }
}

impl RoutingSink for Memory {
    fn wants(&self) -> Planes {
        self.wants
    }
    fn begin(&mut self, batch: &TokenBatch) -> Result<(), SinkError> {
        let base = self.heard.token_ids.len();
        self.heard.spans.extend(batch.spans().iter().cloned().map(|s| Span { start: s.start + base, ..s }));
        self.heard.token_ids.extend_from_slice(batch.token_ids());
        self.heard.positions.extend_from_slice(batch.positions());
        self.passes += 1;
        self.batch_rows = batch.len();
        Ok(())
    }
    fn record(&mut self, view: &RoutingView<'_>) -> Result<(), SinkError> {
        assert_eq!(view.rows(), self.batch_rows);
        let layer = &mut self.heard.layers[view.ordinal().index()];
        layer.experts.extend_from_slice(view.experts());
        layer.weights.extend_from_slice(view.weights().unwrap_or_default());
        layer.margins.extend_from_slice(view.margins().unwrap_or_default());
        layer.gate_entropy.extend_from_slice(view.gate_entropy().unwrap_or_default());
        layer.logits.extend_from_slice(view.logits().unwrap_or_default());
        layer.shared_gate.extend_from_slice(view.shared_gate().unwrap_or_default());
        self.heard.nll.extend_from_slice(view.nll().unwrap_or_default());
        Ok(())
    }
    fn end(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

/// The trace error inside a sink's error.
pub(crate) fn trace_error(error: SinkError) -> TraceError {
    *error.into_inner().downcast().unwrap()
}
