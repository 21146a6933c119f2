//! The real program on the embedded model and on texts made here: what it prints, writes and exits with.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod columns;
mod compare;
mod damage;
mod devices;
mod disk;
mod doctor;
mod exchange;
mod families;
mod faulty_texts;
mod folders;
mod four_bits;
mod hub;
mod metrics;
mod placements;
mod planning;
mod program;
mod refusals;
mod repeat;
mod report;
mod road;
mod settings;
mod signals;
mod streams;
mod verify;
