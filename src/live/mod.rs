//! The only memory shared between the request side and the control side.
