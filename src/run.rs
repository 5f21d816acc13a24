//! Composition root: the only file that names every room.
