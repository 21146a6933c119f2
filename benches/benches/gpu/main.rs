//! Every operation, a layer and whole passes on an NVIDIA GPU, in the shapes of DeepSeek-MoE-16B, on random data.
//!
//! Each result is printed beside criterion's own as a line of fields behind `moetrace-bench`; `cargo xtask bench` makes
//! a document of them. Times of operations are the device's own, by CUDA events; those of passes are the host's clock,
//! so that bringing routing back counts.
//!
//! Without a GPU one line says so and nothing is measured; with `MOETRACE_TEST_CUDA=1` that is a failure.
//! `MOETRACE_TEST_CUDA_DEVICE` chooses another GPU than 0; CUDA's libraries are looked for in `CUDA_HOME`, `CUDA_PATH`
//! and the folders of `MOETRACE_SITE_PACKAGES`. `MOETRACE_BENCH_MODEL` names a checkpoint folder for whole passes,
//! `MOETRACE_TIER` a card whose memory limit they keep. A program that is not run by cargo needs the argument `--bench`.

mod attention;
mod engine;
mod layer;
mod movement;
mod passes;
mod place;
mod products;
mod report;
mod routed;
mod shapes;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use criterion::Criterion;

use self::place::Place;

fn main() -> ExitCode {
    let place = match Place::open() {
        Ok(place) => place,
        Err(error) if std::env::var_os("MOETRACE_TEST_CUDA").is_some_and(|asked| asked == "1") => {
            eprintln!("error: a GPU was asked for: {error:#}");
            return ExitCode::FAILURE;
        }
        Err(error) => {
            println!("no GPU, nothing is measured (MOETRACE_TEST_CUDA=1 makes this a failure): {error:#}");
            return ExitCode::SUCCESS;
        }
    };
    // Some fifty operations are to take less than a minute together.
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500))
        .nresamples(2000)
        .without_plots()
        .configure_from_args();
    match measure(&place, &mut criterion) {
        Ok(()) => {
            criterion.final_summary();
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(place: &Place, criterion: &mut Criterion) -> Result<()> {
    place.introduce();
    let ceilings = place.ceilings()?;
    movement::four_bits(place, criterion);
    movement::rows(place, criterion);
    routed::routing(place, criterion);
    products::dense(place, &ceilings, criterion);
    products::grouped(place, &ceilings, criterion);
    attention::attention(place, &ceilings, criterion);
    layer::layer(place, &ceilings, criterion);
    passes::end_to_end(place, &ceilings, criterion)
}
