//! Answers as bytes: ranges, lengths, and the faults that change them.

use std::io::{self, Write as _};
use std::net::{Shutdown, TcpStream};

use crate::Fault;
use crate::request::Seen;
use crate::routes::Answer;

/// Sends an answer, with what is to go wrong with it, and says how many bytes of its body went out.
pub(crate) fn send(
    stream: &TcpStream,
    request: &Seen,
    mut answer: Answer,
    fault: Option<&Fault>,
) -> io::Result<u64> {
    match fault {
        Some(Fault::Instead(status, headers, body)) => {
            answer = Answer { status: *status, headers: headers.clone(), body: body.clone(), etag: None };
        }
        Some(Fault::Shorter(less)) => answer.body.truncate(answer.body.len().saturating_sub(*less)),
        Some(Fault::OtherEntity) => answer.etag = Some("\"another\"".to_owned()),
        Some(Fault::Spoilt) => answer.body.iter_mut().for_each(|byte| *byte = !*byte),
        Some(Fault::Late(pause)) => std::thread::sleep(*pause),
        _ => {}
    }
    let begin = range(request, &mut answer, fault);
    if let Some(etag) = &answer.etag {
        answer.headers.push(format!("ETag: {etag}"));
        answer.headers.push("Accept-Ranges: bytes".to_owned());
    }
    let mut body = answer.body.split_off(begin.min(answer.body.len()));
    match fault {
        Some(Fault::Longer(more)) => body.extend(std::iter::repeat_n(b'x', *more)),
        Some(Fault::Shorter(_)) => {}
        _ => answer.headers.push(format!("Content-Length: {}", body.len())),
    }
    let mut out = stream;
    write!(out, "HTTP/1.1 {} X\r\nConnection: close\r\n{}\r\n", answer.status, lines(&answer.headers))?;
    if request.method == "HEAD" {
        return Ok(0);
    }
    if let Some(Fault::Cut(after) | Fault::CutNoRanges(after)) = fault {
        body.truncate(*after);
    }
    match fault {
        Some(Fault::Slowly(piece, pause)) => {
            for piece in body.chunks(*piece) {
                out.write_all(piece)?;
                std::thread::sleep(*pause);
            }
        }
        _ => out.write_all(&body)?,
    }
    out.flush()?;
    stream.shutdown(Shutdown::Write)?;
    Ok(body.len() as u64)
}

fn lines(headers: &[String]) -> String {
    headers.iter().fold(String::new(), |lines, header| lines + header + "\r\n")
}

/// Where the answer begins: at the byte asked for, if the entity is still the one that the client has.
fn range(request: &Seen, answer: &mut Answer, fault: Option<&Fault>) -> usize {
    let asked =
        request.headers.get("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-'));
    let asked = asked.and_then(|from| from.parse::<usize>().ok());
    let is_same = request.headers.get("if-range").is_none_or(|tag| answer.etag.as_ref() == Some(tag));
    let knows_ranges = answer.status == 200
        && answer.etag.is_some()
        && !matches!(fault, Some(Fault::NoRanges | Fault::CutNoRanges(_)));
    let Some(from) = asked.filter(|_| is_same && knows_ranges) else { return 0 };
    let of = answer.body.len();
    if from >= of {
        answer.status = 416;
        answer.body.clear();
        return 0;
    }
    answer.status = 206;
    let begin = if matches!(fault, Some(Fault::WrongRange)) { from + 1 } else { from };
    answer.headers.push(format!("Content-Range: bytes {begin}-{}/{of}", of - 1));
    begin
}
