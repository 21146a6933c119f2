//! What a pass is made of, onto the device: tokens, spans and positions.

use moetrace_cuda::{CudaError, Element};

use super::model::Model;
use super::pass::Asked;
use super::record::targets;
use crate::ModelError;

impl<T: Element> Model<T> {
    /// Puts a batch's tokens, spans and positions onto the device.
    pub(super) fn place(&mut self, asked: &Asked<'_, '_>, lengths: &[usize]) -> Result<(), ModelError> {
        let (n, batch) = (asked.batch.len(), asked.batch);
        // A pass that failed may have left some.
        self.pending.clear();
        if let Some(stream) = &mut self.stream {
            stream.restart()?;
        }
        let (device, buffers) = (&self.gpu.device, &mut self.buffers);
        let ids: Vec<u32> = batch.token_ids().iter().map(|id| id.0).collect();
        device.write(&ids, &mut buffers.ids.part_mut(0..n)?)?;
        if asked.is_whole_model() {
            device.write(&targets(batch), &mut buffers.targets.part_mut(0..n)?)?;
        }
        let offsets: Vec<u32> = self.chunks.iter().flat_map(|chunk| [0, chunk.len() as u32]).collect();
        device.write(&offsets, &mut buffers.whole.part_mut(0..offsets.len())?)?;
        for chunk in &self.chunks {
            let Some(sequences) = buffers.sequences.get_mut(chunk.number) else {
                let (found, expected) = (self.chunks.len(), buffers.sequences.len());
                return Err(CudaError::Length { what: "the chunks of a pass", found, expected }.into());
            };
            sequences.set(device, &lengths[chunk.spans.clone()])?;
        }
        Ok(self.place_angles(batch.positions())?)
    }

    /// Tables by position where all positions fit into them, as they do unless positions jump; else by row.
    fn place_angles(&mut self, positions: &[u32]) -> Result<(), CudaError> {
        let (n, room) = (positions.len(), self.sizes.extent.pass);
        let needed = positions.iter().max().map_or(0, |last| *last as usize + 1);
        let by_position = needed <= room;
        let rows = if by_position { needed } else { n };
        let numbers: Vec<u32> = if by_position { positions.to_vec() } else { (0..n as u32).collect() };
        self.gpu.device.write(&numbers, &mut self.buffers.positions.part_mut(0..n)?)?;
        if by_position && self.angles.by_position && rows <= self.angles.rows {
            return Ok(());
        }
        let at = |row: usize| if by_position { row as u32 } else { positions[row] };
        let table = |of: fn(f32) -> f32| -> Vec<T> {
            let angles = &self.angles.angles;
            (0..rows).flat_map(|row| angles.at(at(row)).map(move |angle| T::narrow(of(angle)))).collect()
        };
        let (cosines, sines) = (table(f32::cos), table(f32::sin));
        let device = &self.gpu.device;
        device.write(&cosines, &mut self.buffers.cosines.part_mut(0..cosines.len())?)?;
        device.write(&sines, &mut self.buffers.sines.part_mut(0..sines.len())?)?;
        (self.angles.rows, self.angles.by_position) = (rows, by_position);
        Ok(())
    }
}
