//! Why there is no placement, and what would make one.

use super::budget::Offload;
use super::fill::by_size;
use super::layouts::{Layouts, shape};
use crate::cuda::memory::{CudaMemory, PASS_STEP};
use crate::cuda::placement::{Place, Placement};

/// What there is too little of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lack {
    /// Memory of the device.
    Device,
    /// Memory of the host.
    Host,
    /// Neither, for smaller passes than the one asked for.
    Pass,
}

/// A budget and wishes that do not go together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortfall {
    /// What there is too little of.
    pub lacks: Lack,
    /// Bytes of the device that would do with these wishes, whatever the size of a pass.
    pub least_device: u64,
    /// Bytes of page-locked host memory that would do beside the device's budget; beside [`least_device`](Self::least_device)
    /// where that is lacking.
    pub least_host: u64,
    /// Tokens of the largest pass that fits, where a larger one was asked for.
    pub largest_pass: Option<usize>,
    /// What the layout that takes least of the device takes, for a pass of one text.
    pub least: CudaMemory,
}

impl Layouts<'_> {
    /// What is missing, after [`best`](Layouts::best) found nothing.
    pub(super) fn shortfall(&self) -> Shortfall {
        let least = self.least();
        let mut shortfall = Shortfall {
            lacks: Lack::Device,
            least_device: least.total(),
            least_host: least.host,
            largest_pass: None,
            least,
        };
        if least.total() > self.budget.device {
            return shortfall;
        }
        shortfall.largest_pass = self.asked_pass().and_then(|asked| self.largest_pass(asked));
        shortfall.lacks = if shortfall.largest_pass.is_some() { Lack::Pass } else { Lack::Host };
        shortfall.least_host = self.least_host().unwrap_or(least.host);
        shortfall
    }

    /// What the layout takes that takes least of the device: one text at a time, every layer off the device that may be,
    /// in as many groups of experts as help.
    fn least(&self) -> CudaMemory {
        let one = self.longest();
        let layers = self.plan.weights().layers.len();
        let embedding = self.embeddings().last().copied().unwrap_or(Place::Device);
        let place = |layer| self.wishes.layer(layer).unwrap_or(Place::Host);
        let of = |groups, stay: &[usize]| {
            let mut placement = shape(one, one, (embedding, false), groups);
            placement.layers = (0..layers).map(place).collect();
            for layer in stay {
                placement.layers[*layer] = Place::Device;
            }
            self.plan.memory_of(&placement)
        };
        let mut least = of(1, &[]);
        // Slots are as large as the largest layer in them: with that on the device they may take less.
        let largest = by_size(self.plan, (0..layers).filter(|layer| self.may_stay(*layer)));
        for groups in std::iter::once(1).chain(self.groups()) {
            for count in 0..=largest.len() {
                let found = of(groups, &largest[..count]);
                least = if found.total() < least.total() { found } else { least };
            }
        }
        least
    }

    /// Whether a layer may be on the device.
    fn may_stay(&self, layer: usize) -> bool {
        self.wishes.layer(layer).is_none() && self.wishes.offload != Offload::Always
    }

    /// The largest pass below the one asked for that fits.
    fn largest_pass(&self, asked: usize) -> Option<usize> {
        let in_groups = self.needs_groups();
        let fits = |tokens: usize| {
            !self.chunked(tokens).is_empty() || in_groups && !self.grouped(&[tokens]).is_empty()
        };
        let (mut from, mut to) = (self.longest().div_ceil(PASS_STEP), asked / PASS_STEP);
        if from > to || !fits(from * PASS_STEP) {
            return Some(self.longest()).filter(|one| *one < asked && fits(*one));
        }
        while to - from > 1 {
            let middle = from.midpoint(to);
            if fits(middle * PASS_STEP) { from = middle } else { to = middle }
        }
        Some(from * PASS_STEP).filter(|tokens| *tokens < asked)
    }

    /// The least host memory with which something fits the device, for a pass of one text.
    fn least_host(&self) -> Option<u64> {
        let unlimited = Self { budget: super::Budget { host: u64::MAX, ..self.budget }, ..*self };
        let one = self.longest();
        // On disk what need not wait in host memory, if that takes less.
        let hosts = |placement: Placement| {
            let waiting = self.plan.memory_of(&placement).host;
            let to_disk = |(layer, place): (usize, &Place)| match place {
                Place::Host if self.wishes.reads_disk && self.wishes.layer(layer).is_none() => Place::Disk,
                place => *place,
            };
            let layers = placement.layers.iter().enumerate().map(to_disk).collect();
            waiting.min(self.plan.memory_of(&Placement { layers, ..placement }).host)
        };
        let mut least = None;
        for groups in self.groups() {
            for embedding in self.embeddings() {
                let shape = shape(one, one, (embedding, false), groups);
                if let Some(host) = unlimited.filled(shape).map(hosts) {
                    least = Some(least.unwrap_or(host).min(host));
                }
            }
        }
        least
    }
}
