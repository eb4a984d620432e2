//! The `amphora` binary.
fn main() {}
