//! How fast a warm file reaches the GPU, next to reading it alone.
//!
//! `upload_speed FOLDER [GIB]`: writes a file of 4 GiB (or GIB) there, removed at the end. It stands for a checkpoint of
//! expert matrices in 4 bits: places of 2,883,584 bytes of codes and of 45,056 bytes of scales. Each figure is the best
//! of three, in GB/s of the file's bytes; "mapped" copies from a memory map, "read" reads at a place of the file.
//! `CUDA_HOME` is not asked for: nothing is compiled.

use std::error::Error;
use std::fs::File;
use std::io::Write as _;
use std::num::NonZero;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use memmap2::Mmap;
use moetrace_cuda::{Buffer, CudaError, Device, Libraries, SliceMut, Uploader, UploaderSettings};

const REPEATS: usize = 3;
/// Bytes of a matrix `[1408, 2048]`: two codes each, and a byte for each block of 64.
const PLACES: [usize; 2] = [1408 * 2048, 1408 * 2048 / 64];
/// What reading alone takes at a time.
const PIECE: usize = 2 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1);
    let folder = args.next().map(PathBuf::from).ok_or("expected FOLDER [GIB]")?;
    let gib: usize = args.next().map_or(Ok(4), |number| number.to_string_lossy().parse())?;
    let bytes = gib << 30;
    let path = folder.join("upload_speed.bin");
    let (file, map) = write(&path, bytes)?;
    let measured = measure(&file, &map);
    std::fs::remove_file(path)?;
    measured
}

fn measure(file: &File, map: &Mmap) -> Result<(), Box<dyn Error>> {
    let bytes = map.len();
    let threads = thread::available_parallelism()?.get();
    println!("{bytes} bytes, {threads} threads");
    for threads in powers(threads) {
        let read = best(bytes, || all(bytes, threads, |at, to| file.read_exact_at(to, at as u64)))?;
        let mapped = best(bytes, || {
            all(bytes, threads, |at, to| {
                to.copy_from_slice(&map[at..][..to.len()]);
                Ok(())
            })
        })?;
        println!("reading alone, {threads:>3} threads: read {read:>6.1} GB/s, mapped {mapped:>6.1} GB/s");
    }

    let device = Device::open(Libraries::default().driver()?, 0)?;
    println!("{}", device.name());
    let (mut buffers, starts) = places(&device, bytes)?;
    let last = threads;
    for threads in powers(threads) {
        let chunks = if threads < last { &[2][..] } else { &[1, 2, 4, 8] };
        for mib in chunks {
            let [count, chunk] =
                [threads, mib << 20].map(|number| NonZero::new(number).unwrap_or(NonZero::<usize>::MIN));
            let began = Instant::now();
            let mut uploader = Uploader::new(&device, UploaderSettings { threads: count, chunk })?;
            let made = began.elapsed().as_secs_f64() * 1e3;
            let mut run = |fill: &(dyn Fn(usize, &mut [u8]) -> std::io::Result<()> + Sync)| {
                best(bytes, || {
                    let mut places: Vec<SliceMut<'_, u8>> = buffers.iter_mut().map(Buffer::all_mut).collect();
                    uploader.run(&device, &mut places, |place, start, to| -> Result<(), Failure> {
                        Ok(fill(starts[place] + start, to)?)
                    })?;
                    Ok::<_, Failure>(device.synchronise()?)
                })
            };
            let read = run(&|at, to| file.read_exact_at(to, at as u64))?;
            let mapped = run(&|at, to| {
                to.copy_from_slice(&map[at..][..to.len()]);
                Ok(())
            })?;
            println!(
                "upload, {threads:>3} threads, {mib} MiB: read {read:>6.1} GB/s, mapped {mapped:>6.1} GB/s, made in {made:.0} ms"
            );
        }
    }
    Ok(check(&device, &buffers, &starts, map)?)
}

/// A file that lies in the page cache.
fn write(path: &Path, bytes: usize) -> std::io::Result<(File, Mmap)> {
    let mut file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
    let mut part = vec![0u8; 64 << 20];
    for number in 0..bytes / part.len() {
        for (place, word) in part.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let mixed = ((number << 32 | place) as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            *word = (mixed ^ (mixed >> 29)).to_le_bytes();
        }
        file.write_all(&part)?;
    }
    // SAFETY: the file is this program's own, and nobody else changes it.
    let map = unsafe { Mmap::map(&file) }?;
    Ok((file, map))
}

/// Places on the device that together take `bytes`, and where each begins in the file.
fn places(device: &Device, bytes: usize) -> Result<(Vec<Buffer<u8>>, Vec<usize>), CudaError> {
    let (mut buffers, mut starts, mut start) = (Vec::new(), Vec::new(), 0);
    for size in PLACES.into_iter().cycle() {
        let size = size.min(bytes - start);
        buffers.push(device.zeros(size)?);
        starts.push(start);
        start += size;
        if start == bytes {
            break;
        }
    }
    Ok((buffers, starts))
}

/// Every place holds its part of the file.
fn check(device: &Device, buffers: &[Buffer<u8>], starts: &[usize], map: &Mmap) -> Result<(), CudaError> {
    let mut wrong = 0;
    for (buffer, start) in buffers.iter().zip(starts) {
        wrong += usize::from(device.download(buffer.all())? != map[*start..][..buffer.len()]);
    }
    println!("{} places, {wrong} of them wrong", buffers.len());
    Ok(())
}

/// Reads the whole file in pieces, each into its thread's own memory.
fn all(
    bytes: usize,
    threads: usize,
    read: impl Fn(usize, &mut [u8]) -> std::io::Result<()> + Sync,
) -> std::io::Result<()> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut memory = vec![1u8; PIECE];
        loop {
            let at = next.fetch_add(PIECE, Ordering::Relaxed);
            if at >= bytes {
                return Ok(());
            }
            let length = PIECE.min(bytes - at);
            read(at, &mut memory[..length])?;
        }
    };
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let own = work();
        others.into_iter().filter_map(|other| other.join().ok()).fold(own, Result::and)
    })
}

/// GB/s of the fastest of some runs.
fn best<E>(bytes: usize, mut run: impl FnMut() -> Result<(), E>) -> Result<f64, E> {
    let mut seconds = f64::INFINITY;
    for _ in 0..REPEATS {
        let began = Instant::now();
        run()?;
        seconds = seconds.min(began.elapsed().as_secs_f64());
    }
    Ok(bytes as f64 / seconds / 1e9)
}

/// 1, 2, 4 and so on, and the last.
fn powers(last: usize) -> Vec<usize> {
    let mut powers: Vec<usize> = (0..16).map(|power| 1 << power).take_while(|power| *power < last).collect();
    powers.push(last);
    powers
}

#[derive(Debug)]
enum Failure {
    Cuda(CudaError),
    File(std::io::Error),
}

impl From<CudaError> for Failure {
    fn from(error: CudaError) -> Self {
        Self::Cuda(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::File(error)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cuda(error) => error.fmt(f),
            Self::File(error) => error.fmt(f),
        }
    }
}

impl Error for Failure {}
