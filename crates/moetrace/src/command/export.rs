//! `moetrace export`: a run in a layout that other tools read.

use moetrace_exchange::ExportLayout;
use moetrace_run::RunFolder;
use serde_json::json;

use crate::args::{ExportArgs, ExportLayoutArg};
use crate::failure::Failure;
use crate::output;
use crate::show;

/// Exports what is committed and prints what was written.
pub(crate) fn export(args: &ExportArgs) -> Result<u8, Failure> {
    let layout = match args.layout {
        ExportLayoutArg::Long => ExportLayout::Long,
        ExportLayoutArg::Jsonl => ExportLayout::Jsonl,
        ExportLayoutArg::Sglang => ExportLayout::Sglang,
        ExportLayoutArg::Flame => ExportLayout::Flame,
    };
    let written = moetrace_exchange::export(&RunFolder::new(&args.run), layout, &args.out)?;
    if written.written < written.shards {
        let (done, of) = (written.written, written.shards);
        output::tell(format_args!("note: {done} of {of} shards are committed; those were written"));
    }
    let out = args.out.display().to_string();
    if args.json {
        output::print_json(&json!({
            "out": out,
            "shards": written.shards,
            "written": written.written,
            "samples": written.samples,
            "tokens": written.tokens,
            "files": written.files,
            "bytes": written.bytes,
        }))?;
    } else if !args.quiet {
        output::print(&show::exported(&out, &written))?;
    }
    Ok(0)
}
