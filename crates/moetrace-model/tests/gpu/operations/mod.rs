//! Every operation of moetrace-cuda against its definition on the CPU.

mod attention;
mod elementwise;
mod experts;
mod grouped_product;
mod grouping;
mod memory;
mod nf4;
mod products;
mod quantising;
mod router;
mod transfers;
