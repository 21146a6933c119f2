//! One type per kind of index, so that a layer can never be passed for an expert.

use std::fmt;

macro_rules! index {
    ($(#[$doc:meta])* $name:ident($repr:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name(pub $repr);

        impl $name {
            /// The index as a `usize`, for subscripts.
            #[inline]
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

index! {
    /// A routed expert of one layer, `0..E`.
    ExpertId(u16)
}
index! {
    /// A decoder layer by the model's own (absolute) number.
    LayerIndex(u16)
}
index! {
    /// The position of a layer among the layers that have a router, `0..L`.
    MoeOrdinal(u16)
}
index! {
    /// The row of a text in its source split, files taken in name order.
    SampleId(u32)
}
index! {
    /// An entry of the model's vocabulary.
    TokenId(u32)
}
