//! A request in, a decision out. Pure: time and dice are arguments.
