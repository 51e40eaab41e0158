//! Messages between the parts of a session.
#![forbid(unsafe_code)]
