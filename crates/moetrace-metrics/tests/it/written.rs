//! Texts that have token ids and labels too.

use moetrace_routing::{Name, RoutingGeometry, RoutingSink, SampleId, Span, TokenBatch, TokenId};
use proptest::prelude::*;

use crate::text::{Layer, Text, any_texts};

#[derive(Debug, Clone)]
pub(crate) struct Written {
    pub(crate) text: Text,
    pub(crate) label: Option<String>,
    pub(crate) tokens: Vec<u32>,
}

impl Written {
    /// Its tokens that count, and where they stand: all but a BOS.
    pub(crate) fn counted(&self) -> std::ops::Range<usize> {
        usize::from(self.text.bos)..self.text.len()
    }
}

/// Plays `texts` as one pass.
pub(crate) fn play(geometry: &RoutingGeometry, texts: &[&Written], sink: &mut dyn RoutingSink) {
    let mut spans = Vec::new();
    let (mut tokens, mut positions) = (Vec::new(), Vec::new());
    for text in texts {
        spans.push(Span {
            sample: SampleId(text.text.id),
            dataset: text.text.dataset.as_str().into(),
            label: text.label.as_deref().map(Name::from),
            start: tokens.len(),
            len: text.text.len(),
            begins_with_bos: text.text.bos,
        });
        tokens.extend(text.tokens.iter().map(|&id| TokenId(id)));
        positions.extend(0..text.text.len() as u32);
    }
    sink.begin(&TokenBatch::new(tokens, positions, spans).unwrap()).unwrap();
    let plain: Vec<&Text> = texts.iter().map(|text| &text.text).collect();
    for ordinal in geometry.ordinals() {
        sink.record(&Layer::new(&plain, ordinal).view(geometry)).unwrap();
    }
    sink.end().unwrap();
}

/// Up to 12 texts of three data sets, three labels or none, and eight token ids.
pub(crate) fn any_written(
    experts: usize,
    chosen: usize,
    layers: usize,
) -> impl Strategy<Value = Vec<Written>> {
    let labels = proptest::collection::vec(proptest::option::of(0..3), 12);
    let ids = proptest::collection::vec(0u32..8, 12 * 7);
    (any_texts(experts, chosen, layers), labels, ids).prop_map(|(texts, labels, ids)| {
        let written = texts.into_iter().zip(labels).zip(ids.chunks(7)).map(|((text, label), ids)| Written {
            label: label.map(|label: i32| label.to_string()),
            tokens: ids[..text.len()].to_vec(),
            text,
        });
        written.collect()
    })
}

/// Those of `texts` that go to one of three parts, in passes of `pass_len`.
pub(crate) fn passes<'a>(
    texts: &'a [Written],
    parts: &[usize],
    part: usize,
    pass_len: usize,
) -> Vec<Vec<&'a Written>> {
    let mine: Vec<&Written> =
        texts.iter().zip(parts).filter(|(_, p)| **p == part).map(|(text, _)| text).collect();
    mine.chunks(pass_len).map(<[&Written]>::to_vec).collect()
}
