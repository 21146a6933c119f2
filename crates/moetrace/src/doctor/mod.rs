//! What a run needs of this machine and of the Hub, checked before anything is begun. Nothing is downloaded but a model's
//! small files, and nothing stays that is written but those and, in moetrace's own cache, what comes with it.

mod disk;
mod gpu;
mod host;
mod hub;
mod libraries;
mod model;

use moetrace_run::ResolvedSetting;
use serde::Serialize;

use crate::args::PlanArgs;
use crate::failure::Failure;
use crate::prepare::Settings;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// As it should be.
    Ok,
    /// Worth knowing; what was asked for works all the same.
    Note,
    /// What was asked for cannot work.
    Fails,
}

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    /// A stable name, for machines.
    pub(crate) id: &'static str,
    /// How it ended.
    pub(crate) state: State,
    /// What is there.
    pub(crate) found: String,
    /// What should be.
    pub(crate) needs: Option<String>,
    /// What to type or do where it is not.
    pub(crate) fix: Option<String>,
}

impl Check {
    /// As it should be.
    fn ok(id: &'static str, found: impl Into<String>) -> Self {
        Self { id, state: State::Ok, found: found.into(), needs: None, fix: None }
    }

    /// Not as it might be; `state` says how bad that is.
    fn not_ok(id: &'static str, state: State, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { id, state, found: found.into(), needs: None, fix: Some(fix.into()) }
    }

    /// What a command would be refused with.
    fn refused(id: &'static str, failure: &Failure) -> Self {
        let fix = failure.help.clone().unwrap_or_default();
        Self::not_ok(id, State::Fails, failure.what.trim_end(), fix)
    }

    fn needing(mut self, needs: impl Into<String>) -> Self {
        self.needs = Some(needs.into());
        self
    }
}

/// Checks everything that a `collect` with these arguments needs, in the order of the table.
pub(crate) fn examine(args: &PlanArgs, settings: Vec<ResolvedSetting>) -> Vec<Check> {
    let mut checks = gpu::checks(args.collect.device);
    checks.extend([host::processor(), host::memory()]);
    let names_hub = hub::is_named(&args.collect);
    let asked = hub::ask(args.collect.offline, names_hub);
    let model = model::look(args, &asked, Settings(settings));
    checks.extend(disk::checks(&args.collect, names_hub, &model));
    let [mut hub, login] = asked.checks;
    if hub.state == State::Fails && model.is_found && model.missing == 0 {
        hub.fix =
            Some(format!("--offline takes everything from the cache; or {}", hub.fix.unwrap_or_default()));
    }
    checks.extend([hub, login]);
    checks.extend(model.checks);
    checks
}

/// Whether nothing that is needed is missing.
pub(crate) fn is_well(checks: &[Check]) -> bool {
    checks.iter().all(|check| check.state != State::Fails)
}
