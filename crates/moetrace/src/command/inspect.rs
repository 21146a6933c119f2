//! `moetrace inspect`: a run's provenance and first rows, or a checkpoint's tensors.

use moetrace_model::{Checkpoint, CheckpointSettings, ModelConfig};
use moetrace_run::{Manifest, RunFolder};
use serde_json::json;

use crate::args::InspectArgs;
use crate::failure::{Failure, code};
use crate::output;
use crate::show;

/// Looks at what the path holds and prints it.
pub(crate) fn inspect(args: &InspectArgs) -> Result<u8, Failure> {
    let folder = RunFolder::new(&args.path);
    if folder.has_manifest() {
        let manifest = folder.manifest()?;
        return inspect_run(args, &folder, &manifest);
    }
    if args.path.join("config.json").exists() {
        return inspect_checkpoint(args);
    }
    let what = format!("{} holds neither manifest.json nor config.json", args.path.display());
    Err(Failure::new(code::NO_INPUT, "E-INSPECT", what, "name a run folder or a checkpoint folder"))
}

fn inspect_run(args: &InspectArgs, folder: &RunFolder, manifest: &Manifest) -> Result<u8, Failure> {
    let mut first = None;
    for shard in &manifest.shards {
        if folder.committed(manifest, shard)?.is_some() {
            first = Some(folder.shard_path("data", &shard.name));
            break;
        }
    }
    let rows = first
        .as_ref()
        .map(|path| moetrace_trace::read_rows(path, args.rows))
        .transpose()?
        .unwrap_or_default();
    let columns =
        first.as_ref().map(|path| moetrace_trace::read_columns(path)).transpose()?.unwrap_or_default();
    if args.json {
        output::print_json(&json!({ "manifest": manifest, "columns": columns, "rows": rows }))?;
        return Ok(0);
    }
    output::print(&show::provenance(manifest))?;
    match first {
        Some(path) => {
            output::print(&format!("columns    {}\n\n", columns.join(", ")))?;
            output::print(&format!("first rows of {}\n{}", path.display(), show::rows(&rows)))?;
        }
        None => output::print("no shard is committed yet\n")?,
    }
    Ok(0)
}

fn inspect_checkpoint(args: &InspectArgs) -> Result<u8, Failure> {
    let config = ModelConfig::read(&args.path)?;
    let checkpoint = Checkpoint::open(&args.path, &CheckpointSettings { mmap: true })?;
    if args.json {
        let tensors: Vec<_> = checkpoint
            .tensors()
            .map(|t| json!({ "name": t.name, "type": show::storage(t.storage), "shape": t.shape, "bytes": t.bytes }))
            .collect();
        output::print_json(&json!({
            "family": config.family().to_string(),
            "layers": config.layers(),
            "experts": config.experts(),
            "chosen": config.chosen(),
            "total_parameters": config.total_parameters(),
            "active_parameters": config.active_parameters(),
            "tensors": tensors,
        }))?;
        return Ok(0);
    }
    output::print(&show::checkpoint(&config, &checkpoint))?;
    Ok(0)
}
