//! What goes wrong, and when.

use std::time::Duration;

/// What happens to an answer.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Another answer: status, header lines, body.
    Instead(u16, Vec<String>, Vec<u8>),
    /// The connection ends after so many bytes of the body.
    Cut(usize),
    /// The same from a server that sends all from the beginning, whatever range was asked for.
    CutNoRanges(usize),
    /// The entity has so many bytes less; its length is not said.
    Shorter(usize),
    /// Every byte of the body is another one.
    Spoilt,
    /// The body goes on after its end; its length is not said.
    Longer(usize),
    /// The whole body with status 200, whatever range was asked for.
    NoRanges,
    /// A range that begins one byte too late.
    WrongRange,
    /// The `ETag` is another one, so that what was begun before belongs to something else.
    OtherEntity,
    /// Nothing for a while, then the answer.
    Late(Duration),
    /// The body in pieces of so many bytes with a pause between them.
    Slowly(usize, Duration),
}

/// A fault and the requests that meet it.
#[derive(Debug, Clone)]
pub(crate) struct Scripted {
    pub(crate) part: String,
    pub(crate) times: usize,
    pub(crate) fault: Fault,
}

/// The first fault for a path that has not happened often enough.
pub(crate) fn take(faults: &mut [Scripted], path: &str) -> Option<Fault> {
    let scripted = faults.iter_mut().find(|scripted| scripted.times > 0 && path.contains(&scripted.part))?;
    scripted.times -= 1;
    Some(scripted.fault.clone())
}
