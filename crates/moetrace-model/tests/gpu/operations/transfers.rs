//! Page-locked memory, uploads by several threads, read-backs beside operations.

use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use half::bf16;
use moetrace_cuda::{Buffer, CudaError, Device, Pinned, ReadBack, SliceMut, Uploader, UploaderSettings};

use crate::support::{Random, gpu};

/// Copies of this take a millisecond or so to the host, and a few microseconds within the device.
const LARGE: usize = 16 << 20;

#[derive(Debug)]
enum Failure {
    Cuda(CudaError),
    /// Of the place's filling.
    Place(usize),
}

impl From<CudaError> for Failure {
    fn from(error: CudaError) -> Self {
        Self::Cuda(error)
    }
}

fn uploader(device: &Device, threads: usize, chunk: usize) -> Uploader {
    let [threads, chunk] = [threads, chunk].map(|number| NonZero::new(number).unwrap());
    Uploader::new(device, UploaderSettings { threads, chunk }).unwrap()
}

fn all_mut(buffers: &mut [Buffer<u8>]) -> Vec<SliceMut<'_, u8>> {
    buffers.iter_mut().map(Buffer::all_mut).collect()
}

#[test]
fn page_locked_memory_begins_as_zeros_and_holds_what_is_written() {
    let Some(gpu) = gpu() else { return };
    let mut pinned = Pinned::<u32>::new(&gpu.device, 1000).unwrap();
    assert_eq!(pinned.as_slice(), [0; 1000]);
    pinned.as_mut_slice()[999] = 7;
    let buffer = gpu.device.upload(pinned.as_slice()).unwrap();
    assert_eq!(gpu.device.download(buffer.all()).unwrap(), pinned.as_slice());
    assert!(Pinned::<u32>::new(&gpu.device, 0).unwrap().as_slice().is_empty());
    assert!(matches!(Pinned::<u32>::new(&gpu.device, usize::MAX), Err(CudaError::Driver { .. })));
}

#[test]
fn every_byte_arrives_whatever_the_sizes_the_threads_and_the_chunks() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random(21);
    for (threads, chunk) in [(1, 1), (1, 4096), (4, 256), (4, 100_000), (16, 1 << 20)] {
        let mut uploader = uploader(&gpu.device, threads, chunk);
        for _ in 0..3 {
            let most = 40 * chunk.max(256);
            let sources: Vec<Vec<u8>> = (0..random.below(50))
                .map(|_| {
                    let length = if random.below(3) == 0 { random.below(most) } else { random.below(500) };
                    (0..length).map(|_| random.bits() as u8).collect()
                })
                .collect();
            let mut buffers: Vec<Buffer<u8>> =
                sources.iter().map(|source| gpu.device.zeros(source.len()).unwrap()).collect();
            let fill = |place: usize, start: usize, bytes: &mut [u8]| -> Result<(), CudaError> {
                bytes.copy_from_slice(&sources[place][start..][..bytes.len()]);
                Ok(())
            };
            uploader.run(&gpu.device, &mut all_mut(&mut buffers), fill).unwrap();
            for (buffer, source) in buffers.iter().zip(&sources) {
                assert!(gpu.device.download(buffer.all()).unwrap() == *source, "{threads} threads, {chunk}");
            }
        }
    }
}

#[test]
fn uploads_stand_between_the_operations_before_and_after() {
    let Some(gpu) = gpu() else { return };
    let device = &gpu.device;
    let mut uploader = uploader(device, 4, 1 << 20);
    let old = device.upload(&vec![1u8; LARGE]).unwrap();
    let mut sevens = device.zeros::<u8>(LARGE).unwrap();
    let mut copy = device.zeros::<u8>(LARGE).unwrap();
    for round in 2..22u8 {
        // Long operations before, which write the same places.
        for _ in 0..20 {
            device.copy(old.all(), &mut sevens.all_mut()).unwrap();
        }
        let fill = |_: usize, _: usize, bytes: &mut [u8]| -> Result<(), CudaError> {
            bytes.fill(round);
            Ok(())
        };
        uploader.run(device, &mut [sevens.all_mut()], fill).unwrap();
        device.copy(sevens.all(), &mut copy.all_mut()).unwrap();
        device.copy(old.all(), &mut sevens.all_mut()).unwrap();
        assert!(device.download(copy.all()).unwrap().iter().all(|byte| *byte == round));
        assert!(device.download(sevens.all()).unwrap().iter().all(|byte| *byte == 1));
    }
}

#[test]
fn elements_are_uploaded_as_their_bytes() {
    let Some(gpu) = gpu() else { return };
    let values: Vec<bf16> = Random(22).elements(5000, 1.0);
    let stored: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let mut buffer = gpu.device.zeros::<bf16>(5000).unwrap();
    let fill = |_: usize, start: usize, bytes: &mut [u8]| -> Result<(), CudaError> {
        bytes.copy_from_slice(&stored[start..][..bytes.len()]);
        Ok(())
    };
    let mut uploader = uploader(&gpu.device, 2, 1024);
    uploader.run(&gpu.device, &mut [buffer.all_mut().into_bytes()], fill).unwrap();
    assert_eq!(gpu.device.download(buffer.all()).unwrap(), values);
}

#[test]
fn a_failed_fill_is_passed_through_and_the_uploader_serves_again() {
    let Some(gpu) = gpu() else { return };
    let mut uploader = uploader(&gpu.device, 4, 4096);
    let mut buffers: Vec<Buffer<u8>> = (0..100).map(|_| gpu.device.zeros(4096).unwrap()).collect();
    let begun = AtomicUsize::new(0);
    let failing = |place: usize, _: usize, _: &mut [u8]| {
        begun.fetch_add(1, Ordering::Relaxed);
        if place == 3 { Err(Failure::Place(place)) } else { Ok(()) }
    };
    let error = uploader.run(&gpu.device, &mut all_mut(&mut buffers), failing).unwrap_err();
    match error {
        Failure::Place(place) => assert_eq!(place, 3),
        Failure::Cuda(error) => panic!("{error}"),
    }
    assert!(begun.load(Ordering::Relaxed) < 100);
    let panicking = |place: usize, _: usize, _: &mut [u8]| -> Result<(), CudaError> {
        assert_ne!(place, 3, "a panic that the test wants");
        Ok(())
    };
    let run = || uploader.run(&gpu.device, &mut all_mut(&mut buffers), panicking);
    assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
    let filling = |place: usize, _: usize, bytes: &mut [u8]| -> Result<(), CudaError> {
        bytes.fill(place as u8);
        Ok(())
    };
    uploader.run(&gpu.device, &mut all_mut(&mut buffers), filling).unwrap();
    for (place, buffer) in buffers.iter().enumerate() {
        assert_eq!(gpu.device.download(buffer.all()).unwrap(), vec![place as u8; 4096]);
    }
}

#[test]
fn a_copy_in_flight_keeps_its_values_while_later_operations_overwrite_their_place() {
    let Some(gpu) = gpu() else { return };
    let device = &gpu.device;
    let mut read_back = ReadBack::<u32>::new(device, LARGE).unwrap();
    assert!(read_back.wait().unwrap().is_empty());
    let [first, second] = [1u32, 2].map(|value| device.upload(&vec![value; LARGE]).unwrap());
    for _ in 0..10 {
        device.copy(first.all(), &mut read_back.place().unwrap()).unwrap();
        read_back.queue(LARGE).unwrap();
        device.copy(second.all(), &mut read_back.place().unwrap()).unwrap();
        assert!(read_back.wait().unwrap().iter().all(|value| *value == 1));
        read_back.queue(LARGE - 1).unwrap();
        let found = read_back.wait().unwrap();
        assert!(found.len() == LARGE - 1 && found.iter().all(|value| *value == 2));
    }
}

#[test]
fn read_backs_in_turn_bring_every_pass_and_may_be_dropped_in_flight() {
    let Some(gpu) = gpu() else { return };
    let device = &gpu.device;
    let passes: Vec<Buffer<u32>> =
        (0..8u32).map(|pass| device.upload(&vec![pass; LARGE / 4]).unwrap()).collect();
    let mut halves = [0, 1].map(|_| ReadBack::<u32>::new(device, LARGE / 4).unwrap());
    for (pass, buffer) in passes.iter().enumerate() {
        halves[pass % 2].queue_from(device, buffer.part(0..LARGE / 4 - pass).unwrap()).unwrap();
        if let Some(last) = pass.checked_sub(1) {
            let found = halves[last % 2].wait().unwrap();
            assert!(found.len() == LARGE / 4 - last && found.iter().all(|value| *value == last as u32));
        }
    }
    drop(halves);
    let fresh = device.upload(&vec![9u32; LARGE / 4]).unwrap();
    assert!(device.download(fresh.all()).unwrap().iter().all(|value| *value == 9));
}

#[test]
fn more_than_there_is_room_for_is_refused() {
    let Some(gpu) = gpu() else { return };
    let mut read_back = ReadBack::<u32>::new(&gpu.device, 10).unwrap();
    assert!(matches!(read_back.queue(11), Err(CudaError::Range { end: 11, length: 10, .. })));
    let longer = gpu.device.zeros::<u32>(11).unwrap();
    let error = read_back.queue_from(&gpu.device, longer.all()).unwrap_err();
    assert!(matches!(error, CudaError::Range { end: 11, length: 10, .. }), "{error}");
    assert!(read_back.wait().unwrap().is_empty());
    read_back.queue(0).unwrap();
    assert!(read_back.wait().unwrap().is_empty());
}
