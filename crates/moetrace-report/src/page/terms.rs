//! The words that the page uses.

use maud::html;

use crate::section::{Block, Drawing, Section};

const TERMS: [(&str, &str); 16] = [
    ("token", "a piece of text that the model reads at once: a word, a part of one, a sign"),
    (
        "layer",
        "one of the steps that a model takes a token through, numbered as the model numbers them; some have experts",
    ),
    ("expert", "one of several small networks in a layer, of which only some compute for a token"),
    (
        "router",
        "the part of a layer that scores all experts for a token; those with the highest scores are chosen",
    ),
    (
        "top-k, K of E",
        "how many of a layer's E experts are chosen for each token; rank 1 has the highest score",
    ),
    ("weight", "how much a chosen expert counts in the layer's result for a token"),
    (
        "margin, tie",
        "the score of the last expert chosen less that of the first one not chosen; a tie where both are equal",
    ),
    (
        "load",
        "the number of tokens that chose an expert; an even share is what each would have if all had the same",
    ),
    ("coverage", "the part of a layer's experts that at least one token chose"),
    ("pair, co-activation", "two experts that the same token chose"),
    (
        "entropy",
        "how spread out choices are, in bits: 0 if always the same expert is chosen, the logarithm of the number of experts \
         if all are chosen alike",
    ),
    (
        "mutual information",
        "how many bits knowing one thing (the expert) tells about another (the data set); 0 if nothing",
    ),
    ("by chance, at random", "what routing without structure would give: the dashed lines"),
    (
        "times chance",
        "how often something happens over how often it would if its two sides were independent; 1 is no preference",
    ),
    (
        "95 %",
        "of the values that chance gave in repeated shuffles or draws, 95 of 100 lie below, or within, this",
    ),
    ("BOS", "the beginning-of-sequence token that stands before a text and holds none of it"),
];

pub(crate) fn section() -> Section {
    let list =
        html! { dl class="terms" { @for (term, meaning) in TERMS { dt { (term) } dd { (meaning) } } } };
    let block =
        Block { heading: String::new(), how: String::new(), drawing: Drawing::Markup(list), table: None };
    Section { id: "terms", title: "Terms", lead: String::new(), blocks: vec![block] }
}
