//! Signals in, a picture out. Pure: time and dice are arguments.
