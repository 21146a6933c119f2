//! In: folders as repositories, and a command.
//! Out: the command, run with `HF_ENDPOINT` at a hub that has them; its exit code.
//! Holds: arguments and folders.
//! Not here: the hub, which is the library.

use std::path::Path;
use std::process::{Command, ExitCode};

use loopback_hub::{Kind, LoopbackHub, Repo};

const USAGE: &str =
    "loopback-hub [--model OWNER/NAME=DIR | --dataset OWNER/NAME=DIR]... -- COMMAND [ARGUMENT]...";

fn main() -> ExitCode {
    match run(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error}\nusage: {USAGE}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<u8, String> {
    let end = args.iter().position(|arg| arg == "--").ok_or("no --")?;
    let (repos, command) = (&args[..end], &args[end + 1..]);
    let (program, rest) = command.split_first().ok_or("no command")?;
    let hub = LoopbackHub::start().map_err(|error| error.to_string())?;
    for pair in repos.chunks(2) {
        let kind = match pair[0].as_str() {
            "--model" => Kind::Model,
            "--dataset" => Kind::Dataset,
            other => return Err(format!("unknown argument {other}")),
        };
        let (id, folder) =
            pair.get(1).and_then(|value| value.split_once('=')).ok_or("expected OWNER/NAME=DIR")?;
        let mut files = Vec::new();
        read(Path::new(folder), "", &mut files).map_err(|error| format!("{folder}: {error}"))?;
        hub.publish(Repo::new(kind, id, files.iter().map(|(path, bytes)| (path.as_str(), bytes.clone()))));
    }
    let status =
        Command::new(program).args(rest).env("HF_ENDPOINT", hub.url()).env("NO_PROXY", "127.0.0.1").status();
    let status = status.map_err(|error| format!("{program}: {error}"))?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

fn read(folder: &Path, below: &str, files: &mut Vec<(String, Vec<u8>)>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = format!("{below}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            read(&entry.path(), &format!("{name}/"), files)?;
        } else {
            files.push((name, std::fs::read(entry.path())?));
        }
    }
    Ok(())
}
