//! A source in the place of a model: what it recorded is played pass by pass.

use moetrace_model::{Engine, ModelError};
use moetrace_routing::{
    ExpertId, Name, RoutingGeometry, RoutingPlanes, RoutingSink, RoutingView, SinkError, Span, TokenBatch,
};

use super::ImportSettings;
use super::plan::open;
use super::text::{Text, TextReader};
use crate::ExchangeError;

pub(super) struct Playing {
    settings: ImportSettings,
    geometry: RoutingGeometry,
    open: Option<Open>,
}

/// The source that is being read, and which of its texts comes next.
struct Open {
    dataset: Name,
    reader: Box<dyn TextReader>,
    next: u32,
}

impl Playing {
    pub(super) fn new(settings: ImportSettings, geometry: RoutingGeometry) -> Self {
        Self { settings, geometry, open: None }
    }

    /// The text of a span. Texts are asked for in their order; those of shards that are committed already are left out.
    fn text(&mut self, span: &Span) -> Result<Text, ExchangeError> {
        let source = self.settings.sources.iter().find(|(name, _)| **name == *span.dataset);
        let Some((_, root)) = source else {
            return Err(ExchangeError::file(".".as_ref(), format!("no source is called {}", span.dataset)));
        };
        let changed = || ExchangeError::file(root, "it was changed while it was read");
        let is_behind = |open: &Open| open.dataset != span.dataset || open.next > span.sample.0;
        if self.open.as_ref().is_none_or(is_behind) {
            let reader = open(&self.settings, root)?.reader;
            self.open = Some(Open { dataset: span.dataset.clone(), reader, next: 0 });
        }
        let open = self.open.as_mut().ok_or_else(changed)?;
        loop {
            let text = open.reader.next()?.ok_or_else(changed)?;
            open.next += 1;
            if open.next > span.sample.0 {
                return if text.len == span.len { Ok(text) } else { Err(changed()) };
            }
        }
    }

    fn play(&mut self, batch: &TokenBatch, sink: &mut dyn RoutingSink) -> Result<(), SinkError> {
        let texts = batch.spans().iter().map(|span| self.text(span)).collect::<Result<Vec<_>, _>>();
        let texts = texts.map_err(SinkError::new)?;
        sink.begin(batch)?;
        for ordinal in self.geometry.ordinals() {
            let layers = || texts.iter().filter_map(|text| text.layers.get(ordinal.index()));
            let experts: Vec<ExpertId> = layers().flat_map(|layer| &layer.experts).copied().collect();
            let weights: Option<Vec<f32>> = layers()
                .map(|layer| layer.weights.as_deref())
                .collect::<Option<Vec<_>>>()
                .map(|all| all.concat());
            let planes =
                RoutingPlanes { experts: &experts, weights: weights.as_deref(), ..RoutingPlanes::default() };
            sink.record(&RoutingView::new(&self.geometry, ordinal, batch.len(), planes)?)?;
        }
        sink.end()
    }
}

impl Engine for Playing {
    fn geometry(&self) -> &RoutingGeometry {
        &self.geometry
    }

    fn run(&mut self, batch: &TokenBatch, sink: &mut dyn RoutingSink) -> Result<(), ModelError> {
        Ok(self.play(batch, sink)?)
    }
}
