//! Shows which experts each token goes to: `cargo run --release --example route -- DIR ID ID ID...`
//!
//! Uses the model crate and the routing crate alone; there is no file format and no terminal library below it.

use std::path::Path;

use moetrace_model::{CpuEngine, CpuSettings, Engine};
use moetrace_routing::{RoutingSink, RoutingView, SampleId, SinkError, Span, TokenBatch, TokenId};

/// Prints every layer as it comes.
struct Print;

impl RoutingSink for Print {
    fn begin(&mut self, batch: &TokenBatch) -> Result<(), SinkError> {
        println!("{} tokens", batch.len());
        Ok(())
    }

    fn record(&mut self, view: &RoutingView<'_>) -> Result<(), SinkError> {
        println!("layer {}", view.layer());
        // An engine has both of every token; only traces of other tools may lack them.
        let (weights, margins) = (view.weights().unwrap_or_default(), view.margins().unwrap_or_default());
        let rows = view.experts().chunks_exact(view.chosen()).zip(weights.chunks_exact(view.chosen()));
        for (row, (experts, weights)) in rows.enumerate() {
            let choices: Vec<_> = experts
                .iter()
                .zip(weights)
                .map(|(expert, weight)| format!("{expert} ({weight:.3})"))
                .collect();
            println!("  token {row}: {}, margin {:.4}", choices.join(", "), margins[row]);
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().ok_or("usage: route DIR TOKEN-ID...")?;
    let ids = arguments.map(|id| id.parse().map(TokenId)).collect::<Result<Vec<_>, _>>()?;
    let spans = match ids.len() {
        0 => vec![],
        len => vec![Span {
            sample: SampleId(0),
            dataset: "command line".into(),
            label: None,
            start: 0,
            len,
            begins_with_bos: false,
        }],
    };
    let positions = (0..ids.len() as u32).collect();
    let mut engine = CpuEngine::open(Path::new(&dir), &CpuSettings::default())?;
    engine.run(&TokenBatch::new(ids, positions, spans)?, &mut Print)?;
    Ok(())
}
