//! README.md of a run: a data set card, so that the folder is a Hugging Face data set as it stands.

use std::fmt::Write as _;

use crate::{HubFacts, Manifest, Summary};

/// The card's text; a pure function of manifest and summary.
pub(crate) fn dataset_card(manifest: &Manifest, summary: &Summary) -> String {
    let mut card = String::new();
    // Writing to a String does not fail.
    let _ = front_matter(&mut card, manifest, summary);
    let _ = body(&mut card, manifest, summary);
    card
}

fn front_matter(out: &mut String, manifest: &Manifest, summary: &Summary) -> std::fmt::Result {
    writeln!(out, "---\npretty_name: {}", quoted(&format!("Routing traces of {}", manifest.model.name)))?;
    writeln!(
        out,
        "tags:\n- mixture-of-experts\n- routing-traces\nsize_categories:\n- {}",
        size(summary.tokens)
    )?;
    writeln!(out, "configs:")?;
    let recorded: Vec<_> = manifest.datasets.iter().enumerate().filter(|(_, d)| d.samples > 0).collect();
    let splits = splits(recorded.iter().map(|(_, d)| d.name.as_str()));
    let hidden = manifest.has_hidden();
    let kinds = [("tokens", "data", true), ("samples", "samples", true), ("hidden", "hidden", hidden)];
    for (config, folder, _) in kinds.into_iter().filter(|k| k.2) {
        writeln!(out, "- config_name: {config}")?;
        if config == "tokens" {
            writeln!(out, "  default: true")?;
        }
        writeln!(out, "  data_files:")?;
        for ((index, dataset), split) in recorded.iter().zip(&splits) {
            let shards = manifest.shards.iter().filter(|shard| shard.dataset == *index).count();
            writeln!(out, "  - split: {split}")?;
            writeln!(out, "    path: {}", shard_files(folder, &dataset.name, shards))?;
        }
    }
    writeln!(out, "---\n")
}

fn body(out: &mut String, manifest: &Manifest, summary: &Summary) -> std::fmt::Result {
    let (model, g) = (&manifest.model, &manifest.geometry);
    writeln!(out, "# Routing traces of {}\n", model.name)?;
    writeln!(
        out,
        "Which experts the router of each MoE layer chose for every token, with which weight: {} tokens of {} texts, \
         {} routed layers, {} of {} experts per token. One row per token; columns and guarantees are specified in \
         moetrace's trace format.\n",
        summary.tokens,
        summary.samples,
        g.layers.len(),
        g.chosen,
        g.experts
    )?;
    writeln!(
        out,
        "| data set | texts | tokens | cut at the length limit | left out |\n|---|---|---|---|---|"
    )?;
    for d in &manifest.datasets {
        let left_out: Vec<String> =
            d.skipped.iter().map(|(why, n)| format!("{n} {}", why.replace('_', " "))).collect();
        let left_out = if left_out.is_empty() { "none".to_owned() } else { left_out.join(", ") };
        writeln!(out, "| {} | {} | {} | {} | {left_out} |", d.name, d.samples, d.tokens, d.truncated)?;
    }
    writeln!(out, "\n## How it was made\n")?;
    writeln!(
        out,
        "moetrace {}, model `{}` ({}{}), weights blake3 `{}`, engine {}, precision {}, router dtype {}, plan `{}`. \
         `manifest.json` holds every setting and the hash of every source file.\n",
        manifest.moetrace,
        model.name,
        model.family,
        model.revision.as_ref().map(|r| format!(", revision {r}")).unwrap_or_default(),
        model.weights_hash,
        model.engine,
        model.precision,
        model.router_dtype,
        manifest.plan_hash
    )?;
    if let Some(facts) = &manifest.imported {
        writeln!(
            out,
            "The routing was recorded by another tool and imported from its `{}` files. It did not record: {}.\n",
            facts.layout,
            facts.not_recorded.join(", ")
        )?;
    }
    let with_tokens = manifest.identity.get("no_tokens").is_some_and(|v| v == "false");
    let licences = if with_tokens {
        "The rows hold token ids, which can be turned back into the source texts: the licences of the sources apply \
         to this data set."
    } else {
        "The rows hold no token ids and no texts."
    };
    writeln!(out, "## Licences of the sources\n\n{licences}\n")?;
    sources(out, manifest)
}

/// The model and the data sets with what their cards name, and those that only whoever ran this knows.
fn sources(out: &mut String, manifest: &Manifest) -> std::fmt::Result {
    let named = |hub: &HubFacts| match hub.licences.as_slice() {
        [] => "no licence named on its card".to_owned(),
        licences => licences.join(", "),
    };
    if let Some(hub) = &manifest.model.hub {
        writeln!(out, "- model `{}` at commit `{}`: {}", hub.repo, hub.commit, named(hub))?;
    }
    for dataset in &manifest.datasets {
        match &dataset.hub {
            Some(hub) => {
                writeln!(
                    out,
                    "- {}: `{}` at commit `{}`: {}",
                    dataset.name,
                    hub.repo,
                    hub.commit,
                    named(hub)
                )?;
            }
            None => {
                writeln!(out, "- {}: not known to moetrace; name it here before you publish", dataset.name)?;
            }
        }
    }
    Ok(())
}

/// A YAML string in double quotes; JSON's escapes are YAML's.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The pattern, or the list of them, that matches the files of a data set's shards and those of no other. A star
/// would not do: with it `verse` takes the files of `verse-2`.
fn shard_files(folder: &str, name: &str, shards: usize) -> String {
    let digits = |n: usize| n.to_string().len().max(5);
    let widths = 5..=digits(shards.saturating_sub(1));
    let patterns: Vec<String> = widths
        .map(|width| quoted(&format!("{folder}/{name}-{}-of-{shards:05}.parquet", "[0-9]".repeat(width))))
        .collect();
    match patterns.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

/// Names of splits, each once. `datasets` allows word characters, and dots between them.
fn splits<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut splits: Vec<String> = Vec::new();
    for name in names {
        let chars: Vec<char> = name.chars().collect();
        let is_dot = |at: Option<&char>| at.is_none_or(|&c| c == '.');
        let allowed = |i: usize, c: char| {
            let between = i > 0 && !is_dot(chars.get(i - 1)) && !is_dot(chars.get(i + 1));
            c.is_alphanumeric() || (c == '.' && between)
        };
        let base: String =
            chars.iter().enumerate().map(|(i, &c)| if allowed(i, c) { c } else { '_' }).collect();
        let numbered = (2..).map(|n| format!("{base}_{n}"));
        let free = std::iter::once(base.clone()).chain(numbered).find(|split| !splits.contains(split));
        splits.extend(free);
    }
    splits
}

fn size(rows: u64) -> &'static str {
    match rows {
        0..1_000 => "n<1K",
        1_000..10_000 => "1K<n<10K",
        10_000..100_000 => "10K<n<100K",
        100_000..1_000_000 => "100K<n<1M",
        1_000_000..10_000_000 => "1M<n<10M",
        10_000_000..100_000_000 => "10M<n<100M",
        100_000_000..1_000_000_000 => "100M<n<1B",
        _ => "n>1B",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_are_word_characters_with_dots_between_and_each_is_there_once() {
        for (names, expected) in [
            (vec!["imdb", "v1.5", "a-b"], vec!["imdb", "v1.5", "a_b"]),
            (vec!["a-b", "a_b", "a_b_2", "a.b"], vec!["a_b", "a_b_2", "a_b_2_2", "a.b"]),
            (vec!["v1.", "v1._", "a..b"], vec!["v1_", "v1._", "a__b"]),
        ] {
            assert_eq!(splits(names.into_iter()), expected);
        }
    }

    #[test]
    fn patterns_give_each_digit_of_a_shard_number() {
        let five = "[0-9]".repeat(5);
        assert_eq!(shard_files("data", "a", 7), format!("\"data/a-{five}-of-00007.parquet\""));
        assert_eq!(
            shard_files("data", "a", 100_001),
            format!("[\"data/a-{five}-of-100001.parquet\", \"data/a-{five}[0-9]-of-100001.parquet\"]")
        );
    }
}
