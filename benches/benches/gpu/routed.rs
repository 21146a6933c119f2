//! Choices of experts: how they are made, sorted and combined.

use benches::Random;
use criterion::Criterion;
use half::bf16;
use moetrace_cuda::{
    Buffer, Combine, CudaError, ExpertResults, GroupByExpert, Grouping, Router, RouterOutput, RouterSettings,
    SharedResults,
};

use crate::place::{Place, Work};
use crate::shapes::{CHOSEN, EXPERTS, HIDDEN, TOKENS};

/// Random choices for N tokens, and the same sorted by expert: R is N K.
pub(crate) struct Choices {
    /// `[N, K]`.
    pub(crate) experts: Buffer<u16>,
    /// `[E + 1]`.
    pub(crate) offsets: Buffer<u32>,
    /// `[R]`.
    pub(crate) places: Buffer<u32>,
    /// `[R]`.
    pub(crate) sources: Buffer<u32>,
}

impl Choices {
    /// Experts of a token differ; the first expert has about a quarter more tokens than the middle one.
    pub(crate) fn new(place: &Place, n: usize) -> Result<Self, CudaError> {
        let (mut random, mut experts) = (Random(4), Vec::with_capacity(n * CHOSEN));
        for _ in 0..n {
            let first = experts.len();
            while experts.len() < first + CHOSEN {
                let expert = (random.unit().powf(1.25) * EXPERTS as f32) as u16;
                if !experts[first..].contains(&expert) {
                    experts.push(expert);
                }
            }
        }
        let device = &place.device;
        let rows = experts.len();
        let experts = device.upload(&experts)?;
        let (offsets, places, sources) =
            (device.zeros(EXPERTS + 1)?, device.zeros(rows)?, device.zeros(rows)?);
        let mut choices = Self { experts, offsets, places, sources };
        choices.group(&GroupByExpert::new(device, &place.compiler)?)?;
        Ok(choices)
    }

    fn group(&mut self, kernel: &GroupByExpert) -> Result<(), CudaError> {
        let (offsets, places, sources) =
            (self.offsets.all_mut(), self.places.all_mut(), self.sources.all_mut());
        kernel.run(self.experts.all(), CHOSEN, &mut Grouping { offsets, places, sources })
    }
}

/// Router, grouping and the weighted sum.
pub(crate) fn routing(place: &Place, criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("routing");
    let (device, compiler) = (&place.device, &place.compiler);
    for n in TOKENS {
        let rows = n * CHOSEN;
        let moved = 4 * n * EXPERTS + 6 * rows + 8 * n;
        place.measure(&mut group, ("router", Some(n)), Work::Bytes(moved), || router(place, n));
        let moved = 2 * rows + 8 * rows + 4 * (EXPERTS + 1);
        place.measure(&mut group, ("group_by_expert", Some(n)), Work::Bytes(moved), || {
            let kernel = GroupByExpert::new(device, compiler)?;
            let mut choices = Choices::new(place, n)?;
            Ok(Box::new(move || choices.group(&kernel)))
        });
        // Results and the shared experts' rows are read, one row is written; places, experts and weights of choices.
        let moved = 2 * (rows + 2 * n) * HIDDEN + (4 + 2 + 4) * rows;
        place.measure(&mut group, ("combine", Some(n)), Work::Bytes(moved), || {
            let kernel = Combine::<bf16>::new(device, compiler)?;
            let choices = Choices::new(place, n)?;
            let (results, shared) = (place.elements(rows * HIDDEN)?, place.elements(n * HIDDEN)?);
            let mut random = Random(5);
            let weights: Vec<f32> = (0..rows).map(|_| random.unit() / 3.0).collect();
            let weights = device.upload(&weights)?;
            let mut out = device.zeros::<bf16>(n * HIDDEN)?;
            Ok(Box::new(move || {
                let of = ExpertResults {
                    results: results.all(),
                    places: choices.places.all(),
                    experts: choices.experts.all(),
                    weights: weights.all(),
                    shared: Some(SharedResults { rows: shared.all(), gates: None }),
                };
                kernel.run(&of, HIDDEN, &mut out.all_mut())
            }))
        });
    }
    group.finish();
}

/// Rounds nothing, as DeepSeek's does.
fn router<'q>(place: &Place, n: usize) -> Result<crate::place::Queue<'q>, CudaError> {
    let device = &place.device;
    let settings = RouterSettings {
        experts: EXPERTS,
        chosen: CHOSEN,
        round_logits: false,
        round_scores: false,
        renormalise: false,
        sum_offset: 0.0,
    };
    let kernel = Router::<bf16>::new(device, &place.compiler, settings)?;
    let mut random = Random(6);
    let logits: Vec<f32> = (0..n * EXPERTS).map(|_| 6.0 * random.unit() - 3.0).collect();
    let logits = device.upload(&logits)?;
    let (mut experts, mut weights) = (device.zeros::<u16>(n * CHOSEN)?, device.zeros::<f32>(n * CHOSEN)?);
    let (mut margins, mut entropies) = (device.zeros::<f32>(n)?, device.zeros::<f32>(n)?);
    let mut first_bad = device.zeros::<u32>(1)?;
    Ok(Box::new(move || {
        let mut out = RouterOutput {
            experts: experts.all_mut(),
            weights: weights.all_mut(),
            margins: margins.all_mut(),
            entropies: entropies.all_mut(),
            logits: None,
            first_bad: first_bad.all_mut(),
        };
        kernel.run(logits.all(), &mut out)
    }))
}
