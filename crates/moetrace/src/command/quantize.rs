//! `moetrace quantize`: a checkpoint written anew in 4 bits.

use moetrace_model::{
    Checkpoint, CheckpointSettings, QuantiseSettings, WrittenCheckpoint, quantise_checkpoint,
};
use serde_json::json;

use crate::args::QuantizeArgs;
use crate::failure::Failure;
use crate::inputs::model_folder;
use crate::output;
use crate::progress::{Progress, Written};
use crate::quantisation::{on_threads, quantisation};
use crate::show;

/// Quantises and prints what was written and the next command.
pub(crate) fn quantize(args: &QuantizeArgs) -> Result<u8, Failure> {
    let model = model_folder(&args.model, args.offline, &mut Progress::new(args.quiet))?;
    let source = Checkpoint::open(&model, &CheckpointSettings { mmap: false })?.total_bytes();
    let settings =
        QuantiseSettings { quantisation: quantisation(&args.quantisation)?, shard_bytes: args.shard_size };
    let mut progress = Written::new(args.quiet);
    let written = on_threads(args.threads, || {
        quantise_checkpoint(&model, &args.out, &settings, &mut |event| progress.event(&event))
    })??;
    let out = written.dir.display().to_string();
    if args.json {
        output::print_json(&as_json(&written))?;
    } else if !args.quiet {
        let (from, to) = (show::bytes(source), show::bytes(written.bytes));
        output::print(&format!(
            "{} of {} tensors in 4 bits: {from} -> {to} in {} files, {out}\n",
            written.quantised, written.tensors, written.files
        ))?;
        output::print(&format!(
            "next: {} collect --model {}\n",
            show::quoted(&show::program()),
            show::quoted(&out)
        ))?;
    }
    Ok(0)
}

/// What was written, for machines.
pub(crate) fn as_json(written: &WrittenCheckpoint) -> serde_json::Value {
    json!({
        "out": written.dir.display().to_string(),
        "files": written.files,
        "tensors": written.tensors,
        "quantised": written.quantised,
        "bytes": written.bytes,
    })
}
