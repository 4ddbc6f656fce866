//! The public face on real files.

mod lifecycle;
mod retention;
mod support;
