//! `evenkeel explain`: the way of one request under a config, and why.
