//! Buffers.

use moetrace_cuda::CudaError;

use crate::support::gpu;

#[test]
fn what_is_written_comes_back_also_in_parts() {
    let Some(gpu) = gpu() else { return };
    let device = &gpu.device;
    let values: Vec<u32> = (0..1000).collect();
    let mut buffer = device.upload(&values).unwrap();
    device.write(&[7u32; 10], &mut buffer.part_mut(5..15).unwrap()).unwrap();
    let found = device.download(buffer.part(4..16).unwrap()).unwrap();
    assert_eq!(found, [4, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 15]);
    let mut copy = device.zeros::<u32>(1000).unwrap();
    device.copy(buffer.all(), &mut copy.all_mut()).unwrap();
    assert_eq!(device.download(copy.all()).unwrap(), device.download(buffer.all()).unwrap());
    assert!(device.download(device.upload::<u32>(&[]).unwrap().all()).unwrap().is_empty());
    let (free, total) = device.memory().unwrap();
    assert!(free > 0 && free <= total);
}

#[test]
fn parts_and_copies_that_do_not_fit_are_refused() {
    let Some(gpu) = gpu() else { return };
    let mut buffer = gpu.device.zeros::<u8>(10).unwrap();
    assert!(matches!(buffer.part(5..11), Err(CudaError::Range { start: 5, end: 11, length: 10 })));
    let written = gpu.device.write(&[1, 2], &mut buffer.part_mut(0..3).unwrap());
    assert!(matches!(written, Err(CudaError::Length { found: 3, expected: 2, .. })));
}
