//! The config file: raw, checked, compiled, watched.
