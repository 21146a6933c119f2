//! One card for each expert: its load, its data sets, its tokens, its contexts. The script shows the one that is asked
//! for.

use std::collections::{BTreeMap, HashMap};

use maud::html;
use serde_json::{Value, json};

use super::overview::shown_name;
use crate::input::{ExpertCard, ReportInput};
use crate::notation::Notation;
use crate::section::{Block, Drawing, Section};
use crate::text::visible;

/// Longest token shown whole.
const TOKEN: usize = 24;

/// Absent where there are no cards.
pub(crate) fn section(input: &ReportInput<'_>) -> Option<Section> {
    if input.run.cards.is_empty() {
        return None;
    }
    let stepper = |what: &str, options: Vec<String>| {
        html! {
            button type="button" data-card=(what) data-step="-1" aria-label={ (what) " before" } { "◀" }
            label { (what) " " select data-card=(what) {
                @for (i, option) in options.iter().enumerate() { option value=(i) { (option) } }
            } }
            button type="button" data-card=(what) data-step="1" aria-label={ (what) " after" } { "▶" }
        }
    };
    let markup = html! {
        div class="controls" {
            (stepper("layer", layers(&input.run.cards).iter().map(ToString::to_string).collect()))
            (stepper("expert", super::expert_names(input.run.metrics.experts)))
        }
        div id="card" class="card" aria-live="polite" {}
    };
    let block = Block {
        heading: String::new(),
        how: "Tokens stand in the order of how much more often they choose this expert than chance would have it, the \
              most telling first, with that statistic behind them; ␣ is a space. Contexts are the places where the \
              expert weighed most; the token in question is marked. A cell of the load map above, clicked, opens its card."
            .into(),
        drawing: Drawing::Markup(markup),
        table: None,
    };
    let lead = "What does one expert serve?".into();
    Some(Section { id: "experts", title: "Expert cards", lead, blocks: vec![block] })
}

fn layers(cards: &[ExpertCard]) -> Vec<u16> {
    let mut layers: Vec<u16> = cards.iter().map(|card| card.layer).collect();
    layers.sort_unstable();
    layers.dedup();
    layers
}

/// Cards by layer and expert, with every string once; tokens that occur most have the shortest numbers.
pub(crate) fn island(input: &ReportInput<'_>) -> Value {
    let cards = &input.run.cards;
    if cards.is_empty() {
        return Value::Null;
    }
    let of_card = |card: &ExpertCard| {
        let contexts = card.contexts.iter().flat_map(|c| c.tokens.iter().copied()).collect::<Vec<u32>>();
        card.tokens.iter().map(|t| t.0).chain(contexts).collect::<Vec<u32>>()
    };
    let mut uses: BTreeMap<u32, u64> = BTreeMap::new();
    cards.iter().flat_map(of_card).for_each(|id| *uses.entry(id).or_default() += 1);
    let mut ids: Vec<(u64, u32)> = uses.into_iter().map(|(id, n)| (n, id)).collect();
    ids.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    let number: HashMap<u32, usize> = ids.iter().enumerate().map(|(i, (_, id))| (*id, i)).collect();
    let notation = Notation::of(&input.run.tokens);
    let text = |id: u32| match input.run.tokens.get(&id) {
        Some(text) => visible(&notation.text(text), TOKEN),
        None => format!("[{id}]"),
    };
    let mut datasets: Vec<&str> =
        cards.iter().flat_map(|c| c.contexts.iter().map(|x| x.dataset.as_str())).collect();
    datasets.sort_unstable();
    datasets.dedup();
    let rounded = |value: f64| (value * 100.0).round() / 100.0;
    let card = |card: &ExpertCard| {
        let tokens: Vec<Value> =
            card.tokens.iter().map(|(id, statistic)| json!([number.get(id), rounded(*statistic)])).collect();
        let contexts = card.contexts.iter().map(|c| {
            let tokens: Vec<Option<&usize>> = c.tokens.iter().map(|id| number.get(id)).collect();
            let weight = c.weight.map(|w| rounded(f64::from(w)));
            json!([
                datasets.binary_search(&c.dataset.as_str()).ok(),
                c.sample,
                c.position,
                c.at,
                weight,
                tokens
            ])
        });
        json!({ "tokens": tokens, "contexts": contexts.collect::<Vec<_>>() })
    };
    let layers = layers(cards);
    let of_layer = |layer: &u16| -> BTreeMap<String, Value> {
        let own = cards.iter().filter(|c| c.layer == *layer);
        own.map(|c| (c.expert.to_string(), card(c))).collect()
    };
    json!({
        "strings": ids.iter().map(|(_, id)| text(*id)).collect::<Vec<_>>(),
        "datasets": datasets.iter().map(|d| shown_name(d)).collect::<Vec<_>>(),
        "layers": layers,
        "experts": input.run.metrics.experts,
        "cards": layers.iter().map(of_layer).collect::<Vec<_>>(),
    })
}
