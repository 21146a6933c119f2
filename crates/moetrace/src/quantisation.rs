//! Arguments about 4 bits into what the model crate asks for.

use moetrace_model::{BlockSize, Nf4Settings, Quantisation};

use crate::args::QuantisationArgs;
use crate::failure::{Failure, code};

/// The settings that the flags name.
pub(crate) fn quantisation(args: &QuantisationArgs) -> Result<Quantisation, Failure> {
    let block = BlockSize::new(args.block_size).map_err(|error| {
        Failure::new(code::USAGE, "E-SETTING", error.to_string(), "leave --block-size out for 64")
    })?;
    let nf4 = Nf4Settings { block, double_quant: !args.no_double_quant, ..Nf4Settings::default() };
    Ok(Quantisation { nf4, router: args.quantize_router })
}

/// The settings as the manifest has them.
pub(crate) fn described(quantisation: Quantisation) -> String {
    let Quantisation { nf4, router } = quantisation;
    let scales = if nf4.double_quant { "8-bit scales" } else { "f32 scales" };
    let routers = if router { "routers quantised" } else { "routers not quantised" };
    format!("blocks of {}, {scales}, {routers}", nf4.block)
}

/// Runs on so many threads, or on as many as the machine has.
pub(crate) fn on_threads<T: Send>(
    threads: Option<usize>,
    work: impl FnOnce() -> T + Send,
) -> Result<T, Failure> {
    let pool =
        rayon::ThreadPoolBuilder::new().num_threads(threads.unwrap_or(0)).build().map_err(|error| {
            let what = format!("cannot start threads: {error}");
            Failure::new(code::OTHER, "E-THREADS", what, "try a smaller --threads")
        })?;
    Ok(pool.install(work))
}
