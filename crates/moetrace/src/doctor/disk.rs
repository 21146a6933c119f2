//! Folders that are written to: where they are, whether they can be written, and whether there is space.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use moetrace_hub::free_bytes;
use moetrace_run::{RunError, RunFolder};

use super::model::Looked;
use super::{Check, State};
use crate::args::CollectArgs;
use crate::hub;
use crate::prepare::cache;
use crate::show::bytes;

/// What DeepSeek-MoE-16B takes, the model of the guide that moetrace began as: 16,375,728,128 parameters in 16 bits. Its
/// traces, 20,000 texts of at most 512 tokens, come on top.
const GUIDE_MODEL: u64 = 2 * 16_375_728_128;

const OTHER_CACHE: &str = "export HF_HUB_CACHE=DIR with a folder that can be written";
const OTHER_FOLDER: &str = "name a folder that can be written with --out";
const LARGER_CACHE: &str = "free space, or export HF_HUB_CACHE=DIR with a folder on a larger disk";

/// What is to be written where.
struct Need<'a> {
    id: &'static str,
    folder: &'a Path,
    /// Bytes, and what of.
    bytes: u64,
    of: String,
    /// How bad it is if it cannot be written.
    unwritable: State,
    /// How bad it is if space is short.
    short: State,
    fix: &'static str,
    /// How to name another folder.
    elsewhere: &'static str,
}

/// moetrace's own cache, the Hub's, and the run's folder.
pub(super) fn checks(args: &CollectArgs, names_hub: bool, model: &Looked) -> Vec<Check> {
    let state_if = |is_needed: bool| if is_needed { State::Fails } else { State::Note };
    let mut checks = Vec::new();
    // What comes with moetrace is unpacked there; else it keeps kernels.
    let is_unpacked = args.model.is_none() || args.dataset.is_empty();
    checks.push(match cache() {
        Err(failure) => Check::refused("cache", &failure),
        Ok(folder) => check(&Need {
            id: "cache",
            folder: &folder,
            bytes: model.kept,
            of: if model.kept == 0 {
                String::new()
            } else {
                format!("{} for the quantised copy", bytes(model.kept))
            },
            // What was unpacked once is read.
            unwritable: state_if(model.kept > 0 || (is_unpacked && !model.is_found)),
            short: state_if(model.kept > 0),
            fix: "free space, or export MOETRACE_CACHE=DIR with a folder on a larger disk",
            elsewhere: "export MOETRACE_CACHE=DIR with a folder that can be written",
        }),
    });
    let hub_cache = hub::cache_folder();
    checks.push(match &hub_cache {
        Err(failure) => Check { state: state_if(names_hub), ..Check::refused("hub-cache", failure) },
        Ok(folder) if names_hub => check(&Need {
            id: "hub-cache",
            folder,
            // What could not be found is not known, and more than nothing.
            bytes: if model.is_found { model.missing } else { 1 },
            of: if model.missing == 0 {
                String::new()
            } else {
                format!("{} to download", bytes(model.missing))
            },
            // Where everything is there it is read.
            unwritable: state_if(!model.is_found || model.missing > 0),
            short: State::Fails,
            fix: LARGER_CACHE,
            elsewhere: OTHER_CACHE,
        }),
        Ok(folder) => check(&Need {
            id: "hub-cache",
            folder,
            bytes: GUIDE_MODEL,
            of: format!(
                "{} for a model such as DeepSeek-MoE-16B; the small one needs none",
                bytes(GUIDE_MODEL)
            ),
            unwritable: State::Note,
            short: State::Note,
            fix: LARGER_CACHE,
            elsewhere: OTHER_CACHE,
        }),
    });
    checks.push(out(args, (names_hub, hub_cache.ok().filter(|_| names_hub).as_deref()), model));
    checks
}

/// The run's folder. Where it is on the disk of the Hub's cache, both have to fit.
fn out(args: &CollectArgs, (names_hub, hub_cache): (bool, Option<&Path>), model: &Looked) -> Check {
    // A folder that cannot be written ends every run.
    let unwritable = State::Fails;
    let fix = "free space, name a folder on a larger disk with --out, or take fewer texts with --traces";
    let Some((folder, most, content)) = &model.output else {
        let folder = args.out.clone().unwrap_or_else(|| "runs".into());
        let of = "not known without the model".to_owned();
        return check(&Need {
            id: "out",
            folder: &folder,
            bytes: 0,
            of,
            unwritable,
            short: unwritable,
            fix,
            elsewhere: OTHER_FOLDER,
        });
    };
    let shared = hub_cache.is_some_and(|cache| on_one_disk(cache, folder));
    let download = if shared { model.missing } else { 0 };
    let beside =
        if download > 0 { format!(", beside {} to download", bytes(download)) } else { String::new() };
    let of =
        format!("at most {} for {} texts{beside}", bytes(*most), crate::show::thousands(args.traces as u64));
    // Texts are shorter than the most as a rule, and those that are here may be few.
    let short = if names_hub { State::Fails } else { State::Note };
    let bytes = most.saturating_add(download);
    let run = RunFolder::new(folder);
    if let Err(error @ RunError::ForeignFolder { .. }) = run.check_own() {
        return Check::refused("out", &error.into());
    }
    if let Err(error) = content.check_begun(&run)
        && !args.fresh
    {
        return Check::refused("out", &error.into());
    }
    check(&Need { id: "out", folder, bytes, of, unwritable, short, fix, elsewhere: OTHER_FOLDER })
}

fn check(need: &Need<'_>) -> Check {
    let shown = need.folder.display();
    let needing = |check: Check| if need.of.is_empty() { check } else { check.needing(need.of.clone()) };
    if let Err((at, error)) = writable(need.folder) {
        let found = format!("{shown} cannot be written: {}: {error}", at.display());
        return needing(Check::not_ok(need.id, need.unwritable, found, need.elsewhere));
    }
    let Some(free) = free_bytes(need.folder) else {
        return needing(Check::ok(need.id, format!("{shown}; the system does not tell what is free")));
    };
    needing(space(need, free))
}

/// Whether `free` bytes are enough.
fn space(need: &Need<'_>, free: u64) -> Check {
    let found = format!("{}, {} free", need.folder.display(), bytes(free));
    if need.bytes > 0 && need.bytes > free.saturating_sub(moetrace_hub::DISK_RESERVE) {
        return Check::not_ok(need.id, need.short, found, need.fix);
    }
    Check::ok(need.id, found)
}

/// The folder itself, or the nearest one above it that is there.
fn nearest(folder: &Path) -> Result<PathBuf, (PathBuf, io::Error)> {
    for path in folder.ancestors() {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        match fs::metadata(path) {
            Ok(_) => return Ok(path.to_owned()),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
            Err(error) => return Err((path.to_owned(), error)),
        }
    }
    Ok(PathBuf::from("."))
}

/// Tries it with an empty file that is removed at once: permissions alone do not tell of disks that are read-only.
fn writable(folder: &Path) -> Result<(), (PathBuf, io::Error)> {
    let there = nearest(folder)?;
    if !there.is_dir() {
        return Err((there, ErrorKind::NotADirectory.into()));
    }
    let probe = there.join(format!(".moetrace-doctor-{}", std::process::id()));
    match File::create_new(&probe) {
        Ok(_) => {
            let _ = fs::remove_file(&probe);
            Ok(())
        }
        // Another doctor's, on another machine: it could be made.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err((there, error)),
    }
}

/// Whether two folders, or what is there of the way to them, are on one disk.
#[cfg(unix)]
fn on_one_disk(a: &Path, b: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let disk = |folder: &Path| nearest(folder).ok().and_then(|there| Some(fs::metadata(there).ok()?.dev()));
    disk(a).is_some() && disk(a) == disk(b)
}

/// Nobody tells on other systems; counting both is the careful answer.
#[cfg(not(unix))]
fn on_one_disk(_: &Path, _: &Path) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(folder: &Path, bytes: u64) -> Need<'_> {
        let (unwritable, short) = (State::Fails, State::Fails);
        Need {
            id: "out",
            folder,
            bytes,
            of: "so many".into(),
            unwritable,
            short,
            fix: "free space",
            elsewhere: "--out",
        }
    }

    #[test]
    fn space_is_enough_with_a_reserve_or_it_is_not() {
        let state = |bytes, free| space(&need(Path::new("runs"), bytes), free).state;
        let reserve = moetrace_hub::DISK_RESERVE;
        assert_eq!(state(1_000, 1_000 + reserve), State::Ok);
        assert_eq!(state(1_000, 999 + reserve), State::Fails);
        assert_eq!(state(0, 0), State::Ok);
        assert_eq!(state(u64::MAX, u64::MAX), State::Fails);
    }

    #[test]
    fn the_nearest_folder_that_is_there_is_tried_and_nothing_stays() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("a/b/c");
        assert!(writable(&deep).is_ok() && !deep.exists());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
        // What is there by that name is somebody's.
        let probe = root.path().join(format!(".moetrace-doctor-{}", std::process::id()));
        fs::write(&probe, "mine").unwrap();
        assert!(writable(&deep).is_ok());
        assert_eq!(fs::read_to_string(&probe).unwrap(), "mine");
        let file = root.path().join("file");
        fs::write(&file, "").unwrap();
        for folder in [file.clone(), file.join("below")] {
            let (at, error) = writable(&folder).unwrap_err();
            assert_eq!((at, error.kind()), (file.clone(), ErrorKind::NotADirectory));
            assert_eq!(check(&need(&folder, 0)).state, State::Fails);
        }
        // Nothing can be made in /proc, whoever asks.
        #[cfg(target_os = "linux")]
        assert!(writable(Path::new("/proc/none/here")).is_err());
        assert!(on_one_disk(&deep, root.path()));
    }
}
