//! The only reader of OS time and entropy.
