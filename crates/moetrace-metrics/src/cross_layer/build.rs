//! From totals to numbers: calls the formulas, holds none.

use super::{
    CrossLayerReport, DistanceReport, DistantLink, FARTHEST, LayerLink, OverallCrossLayer, RotationNull,
    null::rotation_nulls,
};
use crate::{
    affinity,
    joint_counts::{JointCounts, reported},
    kept_rows::KeptRows,
    passes::Passes,
    report::spread,
};

pub(super) fn build(passes: &Passes, tables: &[Vec<JointCounts>], kept: &KeptRows) -> CrossLayerReport {
    let (geometry, neighbours) = (passes.geometry(), tables.first().map_or(&[][..], Vec::as_slice));
    let samples = kept.samples();
    let nulls = if samples.is_empty() || neighbours.is_empty() {
        Vec::new()
    } else {
        rotation_nulls(&samples, geometry, passes.settings().seed)
    };
    let links: Vec<LayerLink> = neighbours
        .iter()
        .enumerate()
        .map(|(first, table)| link(passes, first, table, nulls.get(first).copied()))
        .collect();
    let distant: Vec<DistantLink> = (1..)
        .zip(tables)
        .skip(1)
        .flat_map(|(apart, tables)| (0..).zip(tables).map(move |(first, table)| (apart, first, table)))
        .map(|(apart, first, table)| distant_link(passes, apart, first, table))
        .collect();
    CrossLayerReport {
        experts: geometry.experts(),
        chosen: geometry.chosen(),
        tokens: passes.tokens(),
        samples: passes.samples(),
        bos_excluded: passes.bos_excluded(),
        overall: overall(&links, &distant),
        links,
        distant,
    }
}

fn link(passes: &Passes, first: usize, table: &JointCounts, null: Option<RotationNull>) -> LayerLink {
    let (layers, experts) = (passes.geometry().layers(), passes.geometry().experts());
    let counts = table.counts();
    LayerLink {
        from: layers[first].0,
        to: layers[first + 1].0,
        affinity: affinity::of_counts(&counts, experts, passes.geometry().chosen()),
        null,
        counts: reported(counts, experts),
    }
}

fn distant_link(passes: &Passes, apart: usize, first: usize, table: &JointCounts) -> DistantLink {
    let geometry = passes.geometry();
    let affinity = affinity::of_counts(&table.counts(), geometry.experts(), geometry.chosen());
    DistantLink {
        from: geometry.layers()[first].0,
        to: geometry.layers()[first + apart].0,
        apart,
        information_bits: affinity.information_bits,
        information_share: affinity.information_share,
        top_k_mass_by_load: affinity.top_k_mass_by_load,
        popular_mass: affinity.popular_mass,
    }
}

fn overall(links: &[LayerLink], distant: &[DistantLink]) -> OverallCrossLayer {
    let near = links.iter().map(|link| DistantLink {
        from: link.from,
        to: link.to,
        apart: 1,
        information_bits: link.affinity.information_bits,
        information_share: link.affinity.information_share,
        top_k_mass_by_load: link.affinity.top_k_mass_by_load,
        popular_mass: link.affinity.popular_mass,
    });
    let all: Vec<DistantLink> = near.chain(distant.iter().copied()).collect();
    let nulls: Vec<RotationNull> = links.iter().filter_map(|link| link.null).collect();
    let of_nulls =
        |value: fn(&RotationNull) -> f64| (!nulls.is_empty()).then(|| spread(nulls.iter().map(value)));
    OverallCrossLayer {
        by_distance: (1..=FARTHEST).filter_map(|apart| distance(&all, apart)).collect(),
        null_mean_bits: of_nulls(|null| null.mean_bits),
        subset_information_bits: of_nulls(|null| null.subset_information_bits),
    }
}

fn distance(links: &[DistantLink], apart: usize) -> Option<DistanceReport> {
    let links: Vec<&DistantLink> = links.iter().filter(|link| link.apart == apart).collect();
    let of = |value: fn(&DistantLink) -> f64| spread(links.iter().map(|link| value(link)));
    (!links.is_empty()).then(|| DistanceReport {
        apart,
        information_bits: of(|l| l.information_bits),
        information_share: of(|l| l.information_share),
        top_k_mass_by_load: of(|l| l.top_k_mass_by_load),
        popular_mass: of(|l| l.popular_mass),
    })
}
