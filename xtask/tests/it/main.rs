//! Tests of the program as a process.

mod interrupted;
mod soak;
