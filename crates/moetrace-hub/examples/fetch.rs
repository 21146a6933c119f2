//! Brings files of a model into the cache and prints the folder they are in:
//! `cargo run -p moetrace-hub --example fetch -- CACHE OWNER/NAME[@REVISION] FILE...`, with `HF_ENDPOINT` for a mirror
//! and `HF_HUB_OFFLINE=1` to use what the cache has.

use std::error::Error;

use moetrace_hub::{Hub, HubEvent, HubSettings, RepoAddress, RepoFile};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(cache), Some(model)) = (args.next(), args.next()) else {
        return Err("expected CACHE OWNER/NAME[@REVISION] FILE...".into());
    };
    let mut settings = HubSettings::new(cache.into());
    settings.offline = std::env::var("HF_HUB_OFFLINE").is_ok_and(|value| value == "1");
    if let Ok(endpoint) = std::env::var("HF_ENDPOINT") {
        settings.endpoint = endpoint;
    }
    let hub = Hub::new(settings)?;
    let snapshot = hub.snapshot(&RepoAddress::model(&model)?)?;
    let file = |name: String| snapshot.file(&name).ok_or(format!("no file {name}"));
    let files: Vec<&RepoFile> = args.map(file).collect::<Result<_, _>>()?;
    hub.fetch(&snapshot, &files, &mut |event| {
        if let HubEvent::Done { file } = event {
            eprintln!("{file} is there and checked");
        }
    })?;
    println!("{}", snapshot.folder.display());
    Ok(())
}
