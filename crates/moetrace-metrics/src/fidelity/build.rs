//! From totals to a fidelity report: calls the formulas, holds none.

use super::RoutingFidelity;
use super::agreement::{Agreement, rate};
use super::report::{
    AgreementReport, AgreementSpread, DivergenceReport, FidelityReport, FirstDivergence, LayerFidelity,
    LogitFidelity, LossFidelity, MarginBin, OverallFidelity,
};
use super::totals::{DivergenceTotals, LayerTotals, LossTotals, MARGIN_EDGES};
use crate::Spread;
use crate::report::spread;

pub(super) fn build(totals: &RoutingFidelity) -> FidelityReport {
    let geometry = &totals.geometry;
    let (experts, chosen) = (geometry.experts(), geometry.chosen());
    let boundary = chosen < experts;
    let layers: Vec<LayerFidelity> = totals.layers.iter().map(|sums| layer(sums, boundary)).collect();
    let mut everyone = totals.tied.clone();
    everyone.merge(&totals.untied);
    let divergence = |of: &DivergenceTotals| divergence(of, &layers);
    FidelityReport {
        experts,
        chosen,
        tokens: everyone.tokens,
        samples: totals.samples,
        include_bos: totals.settings.include_bos,
        bos_excluded: totals.bos_excluded,
        tokens_with_tie: totals.tied.tokens,
        divergence: divergence(&everyone),
        untied_divergence: divergence(&totals.untied),
        nll: losses(totals),
        overall: OverallFidelity {
            expected_set_overlap: chosen as f64 / experts as f64,
            ties: layers.iter().map(|l| l.tied.rows).sum(),
            all: over_layers(&layers, |l| &l.all),
            untied: over_layers(&layers, |l| &l.untied),
            margin_bins: pooled_bins(&totals.layers, boundary),
            kl_bits: of_logits(&layers, |l| l.kl_bits),
            logit_rmse: of_logits(&layers, |l| l.rmse),
        },
        layers,
    }
}

fn layer(sums: &LayerTotals, boundary: bool) -> LayerFidelity {
    let untied = sums.untied();
    let mut all = untied.clone();
    all.merge(&sums.tied);
    let logits = &sums.logits;
    LayerFidelity {
        layer: sums.layer.0,
        all: all.report(),
        tied: sums.tied.report(),
        untied: untied.report(),
        margin_bins: if boundary { bins(&sums.by_margin) } else { Vec::new() },
        logits: (logits.rows > 0).then(|| LogitFidelity {
            rows: logits.rows,
            kl_bits: logits.kl_bits.mean(logits.rows),
            rmse: logits.squares.mean(logits.rows).sqrt(),
        }),
    }
}

fn bins(by_margin: &[Agreement]) -> Vec<MarginBin> {
    let from = std::iter::once(0.0).chain(MARGIN_EDGES);
    let below = MARGIN_EDGES.into_iter().map(Some).chain([None]);
    let edges = from.zip(below);
    edges
        .zip(by_margin)
        .map(|((from, below), bin)| MarginBin { from, below, agreement: bin.report() })
        .collect()
}

fn pooled_bins(layers: &[LayerTotals], boundary: bool) -> Vec<MarginBin> {
    let Some((first, rest)) = layers.split_first().filter(|_| boundary) else { return Vec::new() };
    let mut pooled = first.by_margin.clone();
    for layer in rest {
        pooled.iter_mut().zip(&layer.by_margin).for_each(|(all, bin)| all.merge(bin));
    }
    bins(&pooled)
}

fn over_layers(layers: &[LayerFidelity], of: fn(&LayerFidelity) -> &AgreementReport) -> AgreementSpread {
    let over = |value: fn(&AgreementReport) -> f64| spread(layers.iter().map(|l| value(of(l))));
    AgreementSpread {
        set_overlap: over(|a| a.set_overlap),
        jaccard: over(|a| a.jaccard),
        exact_set_rate: over(|a| a.exact_set_rate),
        rank_1_agreement: over(|a| a.rank_1_agreement),
        weight_overlap_share: over(|a| a.weight_overlap_share),
    }
}

fn of_logits(layers: &[LayerFidelity], value: fn(&LogitFidelity) -> f64) -> Option<Spread> {
    let known: Option<Vec<f64>> = layers.iter().map(|l| l.logits.as_ref().map(value)).collect();
    known.map(|values| spread(values.into_iter()))
}

fn divergence(totals: &DivergenceTotals, layers: &[LayerFidelity]) -> DivergenceReport {
    let differing = totals.first.iter().sum();
    let first = layers.iter().zip(&totals.first);
    DivergenceReport {
        tokens: totals.tokens,
        differing,
        differing_rate: rate(differing, totals.tokens),
        first_layer: first.map(|(l, &tokens)| FirstDivergence { layer: l.layer, tokens }).collect(),
    }
}

fn losses(totals: &RoutingFidelity) -> Option<LossFidelity> {
    let LossTotals { tokens, reference, other } = totals.losses;
    let (reference, other) = (reference.mean(tokens), other.mean(tokens));
    (tokens > 0).then_some(LossFidelity { tokens, reference, other, delta: other - reference })
}
