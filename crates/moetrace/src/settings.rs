//! Where every setting came from: default, file, environment or flag, the later winning.

use std::ffi::OsString;
use std::path::Path;

use clap::builder::Resettable;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, CommandFactory as _, FromArgMatches as _};
use moetrace_run::ResolvedSetting;

use crate::args::{Cli, Command};
use crate::failure::{Failure, code};

/// The command line, and for `collect`, `plan` and `doctor` each setting with its source.
pub(crate) struct Parsed {
    /// What was asked for.
    pub(crate) cli: Cli,
    /// Every setting of the command, by name.
    pub(crate) settings: Vec<ResolvedSetting>,
}

/// Reads arguments, environment and the file that `--config` names.
pub(crate) fn parse(argv: Vec<OsString>) -> Result<Parsed, Failure> {
    let matches = command().try_get_matches_from(&argv).map_err(Failure::from)?;
    let (name, sub) = matches.subcommand().map_or(("", &matches), |(n, m)| (n, m));
    if !matches!(name, "collect" | "plan" | "doctor") {
        return Ok(Parsed {
            cli: Cli::from_arg_matches(&matches).map_err(Failure::from)?,
            settings: Vec::new(),
        });
    }
    let Some(file) = sub.get_one::<std::path::PathBuf>("config").cloned() else {
        return settle(&matches, &[], None);
    };
    let (extra, from_file) = file_arguments(&file, name, sub)?;
    let mut longer = argv;
    longer.extend(extra);
    // The arguments alone were fine, so what is refused now came from the file.
    let again = command().try_get_matches_from(&longer).map_err(|e| Failure::config_value(&file, &e))?;
    settle(&again, &from_file, Some(&file))
}

/// The command with every setting's source. Of `--batch-size` and `--tokens-per-pass` the one from the later source
/// wins, as of any setting; from the same source they contradict each other.
fn settle(matches: &ArgMatches, from_file: &[String], file: Option<&Path>) -> Result<Parsed, Failure> {
    let (name, sub) = matches.subcommand().map_or(("", matches), |(n, m)| (n, m));
    let mut cli = Cli::from_arg_matches(matches).map_err(Failure::from)?;
    let mut settings = resolved(name, sub, from_file, file);
    let rank = |id: &str| match sub.value_source(id) {
        _ if from_file.iter().any(|f| f == id) => 1,
        Some(ValueSource::EnvVariable) => 2,
        Some(ValueSource::CommandLine) => 3,
        _ => 0,
    };
    let (batch, tokens) = (rank("batch_size"), rank("tokens_per_pass"));
    if batch > 0 && batch == tokens {
        let what = "--batch-size sets --tokens-per-pass; both were given";
        if let Some(file) = file.filter(|_| batch == 1) {
            return Err(Failure::config_file(file, "batch-size sets tokens-per-pass; both are given"));
        }
        return Err(Failure::new(code::USAGE, "E-USAGE", what, "leave one of the two out"));
    }
    if batch < tokens {
        match &mut cli.command {
            Command::Collect(args) => args.batch_size = None,
            Command::Plan(args) | Command::Doctor(args) => args.collect.batch_size = None,
            _ => {}
        }
        if let Some(setting) = settings.iter_mut().find(|s| s.name == "batch-size") {
            (setting.value, setting.source) = ("automatic".into(), "default".into());
        }
    }
    Ok(Parsed { cli, settings })
}

/// The command line; a variable that is set to nothing is as one that is not set.
fn command() -> clap::Command {
    let is_empty = |arg: &Arg| arg.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
    let without = |arg: Arg| if is_empty(&arg) { arg.env(Resettable::Reset) } else { arg };
    Cli::command().mut_subcommands(|sub| sub.mut_args(without))
}

/// The file's keys as arguments, those given by flag or environment left out.
fn file_arguments(
    file: &Path,
    name: &str,
    given: &ArgMatches,
) -> Result<(Vec<OsString>, Vec<String>), Failure> {
    let text = std::fs::read_to_string(file).map_err(|e| Failure::config_file(file, &e.to_string()))?;
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| {
        let before = e.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = 1 + before.matches('\n').count();
        Failure::config_file(file, &format!("line {line}: {}", e.message()))
    })?;
    let root = command();
    let Some(sub) = root.find_subcommand(name) else { return Ok(Default::default()) };
    let (mut arguments, mut used) = (Vec::new(), Vec::new());
    for (key, value) in &table {
        let id = key.replace('-', "_");
        let Some(arg) = sub.get_arguments().find(|a| a.get_id() == id.as_str() && id != "config") else {
            return Err(Failure::config_key(file, key, sub));
        };
        if is_given(given, &id) {
            continue;
        }
        let flag = format!("--{}", arg.get_long().unwrap_or(key));
        let values = match value {
            toml::Value::Array(many) => many.clone(),
            one => vec![one.clone()],
        };
        let is_switch = !arg.get_action().takes_values();
        for value in values {
            // `--flag=value`, so that a value that begins with a dash is none the less a value.
            match (value, is_switch) {
                (toml::Value::Boolean(true), true) => arguments.push(flag.clone().into()),
                (toml::Value::Boolean(false), true) => {}
                (toml::Value::String(text), false) => arguments.push(format!("{flag}={text}").into()),
                (toml::Value::Integer(n), false) => arguments.push(format!("{flag}={n}").into()),
                (other, _) => {
                    let expected = if is_switch { "true or false" } else { "text or a whole number" };
                    let what = format!("{key} is a {}, expected {expected}", other.type_str());
                    return Err(Failure::config_file(file, &what));
                }
            }
        }
        used.push(id);
    }
    Ok((arguments, used))
}

fn is_given(matches: &ArgMatches, id: &str) -> bool {
    let source = matches.try_contains_id(id).ok().and_then(|_| matches.value_source(id));
    matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable))
}

fn resolved(
    name: &str,
    matches: &ArgMatches,
    from_file: &[String],
    file: Option<&Path>,
) -> Vec<ResolvedSetting> {
    let root = command();
    let Some(sub) = root.find_subcommand(name) else { return Vec::new() };
    let hidden = ["help", "quiet", "json", "no_report", "fresh", "repair", "config", "gpu"];
    let shown = |id: &str| !hidden.contains(&id);
    sub.get_arguments()
        .filter(|arg| shown(arg.get_id().as_str()))
        .map(|arg| {
            let id = arg.get_id().as_str();
            let raw = matches.try_get_raw(id).ok().flatten();
            let value = match raw {
                _ if !arg.get_action().takes_values() => matches.get_flag(id).to_string(),
                None => "automatic".to_owned(),
                Some(values) => {
                    values.map(|v| v.to_string_lossy().into_owned()).collect::<Vec<_>>().join(", ")
                }
            };
            let source = match matches.value_source(id) {
                _ if from_file.iter().any(|f| f == id) => {
                    format!("file {}", file.map(|f| f.display().to_string()).unwrap_or_default())
                }
                Some(ValueSource::CommandLine) => "flag".into(),
                Some(ValueSource::EnvVariable) => {
                    format!("environment {}", arg.get_env().unwrap_or_default().to_string_lossy())
                }
                _ => "default".into(),
            };
            ResolvedSetting { name: arg.get_long().unwrap_or(id).to_owned(), value, source }
        })
        .collect()
}
