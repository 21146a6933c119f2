//! All that is known about one expert, put together from the reports that know it.

use serde::Serialize;

use crate::{
    contexts::{Context, ContextsReport},
    groups::GroupsReport,
    vocabulary::{Keyword, VocabularyReport},
};

/// One expert of one layer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExpertCard<'a> {
    /// The model's own (absolute) number of the layer.
    pub layer: u16,
    /// The expert.
    pub expert: u16,
    /// Tokens that chose it.
    pub load: u64,
    /// How much each group uses it, in the order of the groups.
    pub groups: Vec<GroupShare>,
    /// Ids that it stands out by, best first; absent where no ids are recorded.
    pub keywords: Option<&'a [Keyword]>,
    /// Where it has its highest weights; absent where no ids are recorded.
    pub contexts: Option<&'a [Context]>,
}

/// How much a group uses an expert.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct GroupShare {
    /// Part of the group's tokens that chose it.
    pub share: f64,
    /// This share over the share of the tokens of all groups; 0 if no token chose it.
    pub ratio: f64,
}

/// The card of an expert; `None` if there is no such layer or expert. `ordinal` counts the layers of the reports, which
/// must be of the same run.
pub fn expert_card<'a>(
    ordinal: usize,
    expert: usize,
    groups: &GroupsReport,
    vocabulary: Option<&'a VocabularyReport>,
    contexts: Option<&'a ContextsReport>,
) -> Option<ExpertCard<'a>> {
    let layer = groups.layers.get(ordinal)?.layer;
    let loads: Option<Vec<u64>> =
        groups.groups.iter().map(|group| group.loads.get(ordinal)?.get(expert).copied()).collect();
    let loads = loads?;
    let load = loads.iter().sum::<u64>();
    let share = |load: u64, tokens: u64| load as f64 / tokens.max(1) as f64;
    let overall = share(load, groups.tokens);
    let of_group = |(&load, tokens): (&u64, u64)| {
        let share = share(load, tokens);
        GroupShare { share, ratio: if overall > 0.0 { share / overall } else { 0.0 } }
    };
    Some(ExpertCard {
        layer,
        expert: expert as u16,
        load,
        groups: loads.iter().zip(groups.groups.iter().map(|group| group.tokens)).map(of_group).collect(),
        keywords: vocabulary.and_then(|v| Some(v.layers.get(ordinal)?.keywords.get(expert)?.as_slice())),
        contexts: contexts.and_then(|c| Some(c.layers.get(ordinal)?.experts.get(expert)?.as_slice())),
    })
}
