//! Data sets with a short name: where they are, which column has the text, and under which licence they were published.
//!
//! The first six are those of the Python guide that moetrace began as (`collect_deepseek_moe_traces.py` of specMoE,
//! commit 6b00fa25), with its columns; ids as the Hub has them today. Licences are those of the cards
//! in huggingface/datasets at 1b607635.

use crate::{DatasetAddress, RepoAddress, RepoId, RepoKind, Revision};

/// A data set by its short name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preset {
    /// The short name, which is also the data set's name in a run.
    pub name: &'static str,
    /// The owner of the repository.
    pub owner: &'static str,
    /// Its name.
    pub repo: &'static str,
    /// The configuration.
    pub config: &'static str,
    /// The column with the text.
    pub column: &'static str,
    /// As its card has it.
    pub licence: &'static str,
}

impl Preset {
    /// The preset of a name.
    pub fn named(name: &str) -> Option<&'static Self> {
        PRESETS.iter().find(|preset| preset.name == name)
    }

    /// Its training split on the Hub; `None` for no preset of ours, whose ids are well formed.
    pub fn address(&self) -> Option<DatasetAddress> {
        let id = RepoId::parse(&format!("{}/{}", self.owner, self.repo)).ok()?;
        Some(DatasetAddress {
            repo: RepoAddress { kind: RepoKind::Dataset, id, revision: Revision::main() },
            config: Some(self.config.to_owned()),
            split: Some("train".to_owned()),
            column: Some(self.column.to_owned()),
        })
    }
}

const fn preset(
    name: &'static str,
    (owner, repo): (&'static str, &'static str),
    config: &'static str,
    column: &'static str,
    licence: &'static str,
) -> Preset {
    Preset { name, owner, repo, config, column, licence }
}

/// How many of the first presets the guide used.
const IN_GUIDE: usize = 6;

/// All presets.
pub const PRESETS: [Preset; 8] = [
    preset("imdb", ("stanfordnlp", "imdb"), "plain_text", "text", "other"),
    preset(
        "yelp_review_full",
        ("Yelp", "yelp_review_full"),
        "yelp_review_full",
        "text",
        "other (yelp-licence)",
    ),
    preset("ag_news", ("fancyzhx", "ag_news"), "default", "text", "unknown"),
    preset("squad", ("rajpurkar", "squad"), "plain_text", "context", "cc-by-4.0"),
    preset("amazon_polarity", ("fancyzhx", "amazon_polarity"), "amazon_polarity", "content", "apache-2.0"),
    preset("dbpedia_14", ("fancyzhx", "dbpedia_14"), "dbpedia_14", "content", "cc-by-sa-3.0"),
    preset(
        "yahoo_answers_topics",
        ("community-datasets", "yahoo_answers_topics"),
        "yahoo_answers_topics",
        "best_answer",
        "unknown",
    ),
    preset(
        "wikitext-2-raw-v1",
        ("Salesforce", "wikitext"),
        "wikitext-2-raw-v1",
        "text",
        "cc-by-sa-3.0, gfdl",
    ),
];

/// The six data sets of the guide, in its order.
pub const GUIDE: &[Preset] = PRESETS.split_at(IN_GUIDE).0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_has_an_address_and_the_guide_has_six() {
        for preset in &PRESETS {
            let address = preset.address().unwrap();
            assert_eq!(address.repo.id.to_string(), format!("{}/{}", preset.owner, preset.repo));
            assert_eq!(Preset::named(preset.name), Some(preset));
        }
        let names: Vec<&str> = GUIDE.iter().map(|preset| preset.name).collect();
        assert_eq!(names, ["imdb", "yelp_review_full", "ag_news", "squad", "amazon_polarity", "dbpedia_14"]);
        assert!(Preset::named("guide").is_none());
    }
}
