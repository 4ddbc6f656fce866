//! The faults, each a run that ends in a verdict.

pub mod kill9;
