//! Takes all of a GPU's memory but so many bytes, runs a command, and says how much it used at most: `memory_hog BYTES
//! COMMAND [ARGUMENT ...]`
//!
//! The driver is asked for free memory every millisecond, from outside the command's process: its context counts. Fails
//! where the command does, or where it used more than the bytes and 2 MiB.

use std::process::{Command, ExitCode};
use std::time::Duration;

use moetrace_cuda::{Device, Libraries};

/// Memory comes in pages of so many bytes.
const PAGE: usize = 2 << 20;

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [leave, program, rest @ ..] = &arguments[..] else {
        return Err("usage: memory_hog BYTES COMMAND [ARGUMENT ...]".into());
    };
    let leave: usize = leave.parse()?;
    let device = Device::open(Libraries::new(&[], &[]).driver()?, 0)?;
    let mut taken = Vec::new();
    loop {
        let free = device.memory()?.0;
        let more = free.saturating_sub(leave) / PAGE * PAGE;
        if more == 0 {
            break;
        }
        taken.push(device.zeros::<u8>(more)?);
        device.synchronise()?;
    }
    let before = device.memory()?.0;
    let mut child = Command::new(program).args(rest).spawn()?;
    let (mut least, mut samples) = (before, 0u64);
    let status = loop {
        least = least.min(device.memory()?.0);
        samples += 1;
        if let Some(status) = child.try_wait()? {
            break status;
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let (used, most) = (before - least, leave + PAGE);
    println!(
        "memory_hog: {before} bytes left free for a limit of {leave}; at most {used} in use ({samples} samples), {:.3} of \
         the limit; {status}",
        used as f64 / leave as f64
    );
    Ok(if status.success() && used <= most { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
