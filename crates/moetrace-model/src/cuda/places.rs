//! Every buffer of a model's weights, as bytes to be written.

use moetrace_cuda::{Element, SliceMut};

use super::weights::{
    Block, ExpertGroup, LayerWeights, Matrix, MoeWeights, Stack, StackScales, SwiGlu, Table, Weights,
};

pub(super) type Places<'a> = Vec<SliceMut<'a, u8>>;

impl<T: Element> Weights<T> {
    /// All buffers that stay on the device, but those that are written where they are made: tables of codes.
    pub(super) fn places(&mut self) -> Places<'_> {
        let Self { embedding, layers, final_norm, head } = self;
        let embedding = match embedding {
            Table::Device(buffer) => Some(buffer),
            Table::Host(_) => None,
        };
        let dense = [embedding, Some(final_norm), head.as_mut()].into_iter().flatten();
        let mut places = dense.map(|buffer| buffer.all_mut().into_bytes()).collect();
        for layer in layers.iter_mut().filter(|layer| layer.unit.is_none()) {
            layer.add_places(&mut places);
        }
        places
    }
}

impl<T: Element> LayerWeights<T> {
    /// All buffers but those of experts that come by themselves.
    pub(super) fn add_places<'a>(&'a mut self, to: &mut Places<'a>) {
        let Self {
            unit: _,
            input_norm,
            qkv,
            qkv_bias,
            output,
            output_bias,
            query_norm,
            key_norm,
            post_attention_norm,
            block,
        } = self;
        let vectors = [qkv_bias, output_bias, query_norm, key_norm].into_iter().flatten();
        let vectors = vectors.chain([input_norm, post_attention_norm]);
        to.extend(vectors.map(|buffer| buffer.all_mut().into_bytes()));
        qkv.add_places(to);
        output.add_places(to);
        match block {
            Block::Dense(block) => block.add_places(to),
            Block::Moe(moe) => {
                let MoeWeights { router, experts, shared, shared_gate } = &mut **moe;
                to.push(router.all_mut().into_bytes());
                to.extend(shared_gate.iter_mut().map(|buffer| buffer.all_mut().into_bytes()));
                for ExpertGroup { ids: _, unit, weights } in experts {
                    if unit.is_none() {
                        weights.add_places(to);
                    }
                }
                if let Some(shared) = shared {
                    shared.add_places(to);
                }
            }
        }
    }
}

impl<T: Element> SwiGlu<T> {
    pub(super) fn add_places<'a>(&'a mut self, to: &mut Places<'a>) {
        let Self { gate_up, down } = self;
        gate_up.add_places(to);
        down.add_places(to);
    }
}

impl<T: Element> Matrix<T> {
    fn add_places<'a>(&'a mut self, to: &mut Places<'a>) {
        match self {
            Self::Dense(buffer) => to.push(buffer.all_mut().into_bytes()),
            Self::Nf4(stacks) => {
                for Stack { codes, scales, tensors: _, elements: _, block: _, tables: _ } in stacks {
                    to.push(codes.all_mut());
                    match scales {
                        StackScales::Plain(scales) => to.push(scales.all_mut().into_bytes()),
                        StackScales::Double { codes, nested, offsets, block: _ } => {
                            to.push(codes.all_mut());
                            to.extend([nested, offsets].map(|buffer| buffer.all_mut().into_bytes()));
                        }
                    }
                }
            }
        }
    }
}
