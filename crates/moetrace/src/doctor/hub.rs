//! The Hub: whether it answers, and who asks. The token itself is in no line.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use moetrace_hub::{Account, Hub, HubError};

use super::{Check, State};
use crate::args::CollectArgs;
use crate::failure::Failure;
use crate::hub::{self, DatasetName, ModelName};

/// Most time for an answer in all, names and proxies that hang included: whoever waits for a doctor watches.
const MOST_TIME: Duration = Duration::from_secs(8);

const LOG_IN: &str = "'hf auth login' (older: 'huggingface-cli login'), or export HF_TOKEN=...; tokens are made at \
                      https://huggingface.co/settings/tokens";

/// What the Hub said.
pub(super) struct Asked {
    /// Whether it can be asked for more.
    pub(super) is_reachable: bool,
    /// The lines about it and about the login.
    pub(super) checks: [Check; 2],
}

/// Whether a model or a data set of the Hub is named.
pub(super) fn is_named(args: &CollectArgs) -> bool {
    let model =
        args.model.as_deref().is_some_and(|model| matches!(hub::model_named(model), Ok(ModelName::OnHub(_))));
    let on_hub = |dataset: &DatasetName| matches!(dataset, DatasetName::OnHub { .. });
    let texts = |given: &String| hub::datasets_named(given).is_ok_and(|datasets| datasets.iter().any(on_hub));
    model || args.dataset.iter().any(texts)
}

/// Asks who the token belongs to. What cannot be had is a failure where something of the Hub is named, else a note; what was
/// set and is wrong is one in any case.
pub(super) fn ask(offline: bool, is_named: bool) -> Asked {
    let missing = if is_named { State::Fails } else { State::Note };
    match hub::hasty_client(offline) {
        Ok(client) if client.settings().offline => offline_lines(offline),
        Ok(client) => {
            let endpoint = client.endpoint().clone();
            let source = client.settings().token.as_ref().map(|token| token.source().to_owned());
            lines(&endpoint, source.as_deref(), who(client), missing)
        }
        Err(failure) => refused(&failure, missing),
    }
}

/// The answer, or `None` after [`MOST_TIME`]; the thread ends with the program.
fn who(client: Hub) -> Option<Result<Account, HubError>> {
    let (told, answer) = mpsc::channel();
    thread::spawn(move || told.send(client.whoami()));
    answer.recv_timeout(MOST_TIME).ok()
}

fn lines(
    endpoint: &str,
    source: Option<&str>,
    answer: Option<Result<Account, HubError>>,
    missing: State,
) -> Asked {
    let token = source.map_or_else(|| "no token is set".to_owned(), |source| format!("token from {source}"));
    let there = |login| {
        let hub = Check::ok("hub", format!("{endpoint} answers"));
        Asked { is_reachable: true, checks: [hub, login] }
    };
    match answer {
        Some(Ok(account)) => there(Check::ok("login", format!("{} ({token}, not shown)", account.name))),
        Some(Err(error @ (HubError::BadToken { .. } | HubError::Token { .. }))) => {
            // A new login would not be looked at where a variable has a token.
            let failure = Failure::from(error);
            let of_login = source.is_some_and(|source| source.starts_with("the file"));
            let fix = if of_login { LOG_IN.to_owned() } else { failure.help.clone().unwrap_or_default() };
            there(Check::not_ok("login", State::Fails, failure.what, fix))
        }
        Some(Err(HubError::Status { status: 401, .. })) if source.is_none() => {
            let found = "nobody: no token is set, and public models and data sets need none";
            there(Check::not_ok("login", State::Note, found, LOG_IN))
        }
        // Mirrors do not know accounts.
        Some(Err(HubError::Status { status, .. })) if status < 500 => {
            let found = format!("not told: the host answers {status} to who asks ({token})");
            there(Check::not_ok("login", State::Note, found, "unset HF_ENDPOINT to ask the Hub itself"))
        }
        Some(Err(error)) => away(missing, &Failure::from(error)),
        None => {
            let what = format!("{endpoint} does not answer within {} s", MOST_TIME.as_secs());
            let help = "check the connection; behind a proxy set HTTPS_PROXY, for a mirror HF_ENDPOINT";
            away(missing, &Failure::new(crate::failure::code::UNAVAILABLE, "E-NETWORK", what, help))
        }
    }
}

/// It cannot be asked.
fn away(missing: State, why: &Failure) -> Asked {
    let hub = Check { state: missing, ..Check::refused("hub", why) };
    let login =
        Check::not_ok("login", State::Note, "not asked: the Hub does not answer", "see the line before");
    Asked { is_reachable: false, checks: [hub, login] }
}

/// It is not to be asked.
fn offline_lines(by_flag: bool) -> Asked {
    let (who, fix) = if by_flag {
        ("--offline, MOETRACE_OFFLINE or the configuration", "take that back to ask it")
    } else {
        ("HF_HUB_OFFLINE", "unset HF_HUB_OFFLINE to ask it")
    };
    let line =
        |id, what: &str| Check::not_ok(id, State::Note, format!("not asked: {who} says so{what}"), fix);
    let checks = [line("hub", "; what is named comes from the cache"), line("login", "")];
    Asked { is_reachable: false, checks }
}

/// What the environment sets cannot be. That it names no cache at all is bad where one is needed.
fn refused(why: &Failure, missing: State) -> Asked {
    let state = if why.name == "E-CACHE" { missing } else { State::Fails };
    let login_is_wrong = why.name == "E-AUTH" || why.what.contains("_TOKEN");
    let other = |id| Check::not_ok(id, State::Note, "not asked", "see the line that fails");
    let checks = if login_is_wrong {
        [other("hub"), Check::refused("login", why)]
    } else {
        [Check { state, ..Check::refused("hub", why) }, other("login")]
    };
    Asked { is_reachable: false, checks }
}

#[cfg(test)]
mod tests {
    use State::{Fails, Note, Ok as Well};

    use super::*;

    #[test]
    fn whatever_the_hub_says_of_who_asks_is_a_line_with_its_state() {
        let states = |source, answer, missing| {
            let asked = lines("https://hub", source, answer, missing);
            asked.checks.map(|check| check.state)
        };
        let account = || Some(Ok(Account { name: "ada".into() }));
        let status = |status| Some(Err(HubError::Status { url: "u".into(), status, said: String::new() }));
        let bad = || Some(Err(HubError::BadToken { source_name: "HF_TOKEN".into() }));
        assert_eq!(states(Some("HF_TOKEN"), account(), Note), [Well, Well]);
        assert_eq!(states(Some("HF_TOKEN"), bad(), Note), [Well, Fails]);
        assert_eq!(states(None, status(401), Fails), [Well, Note]);
        assert_eq!(states(None, status(404), Fails), [Well, Note]);
        assert_eq!(states(None, status(503), Fails), [Fails, Note]);
        assert_eq!(states(None, None, Note), [Note, Note]);
        assert_eq!(states(None, None, Fails), [Fails, Note]);
        let named = lines("https://hub", Some("HF_TOKEN"), account(), Note);
        assert_eq!(named.checks[1].found, "ada (token from HF_TOKEN, not shown)");
    }
}
