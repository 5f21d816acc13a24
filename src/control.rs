//! The one task that owns the controller: signals in, pictures and events out.
