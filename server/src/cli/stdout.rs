//! Standard output that may be closed by whoever reads it, as `head` does: not an error, and no panic.

use std::fmt::Arguments;
use std::io::Write;

/// Prints to standard output.
pub fn print(text: Arguments<'_>) {
    let _ = std::io::stdout().lock().write_fmt(text);
}

/// `println!` that does not mind a closed output.
macro_rules! say {
    ($($text:tt)*) => {
        $crate::cli::print(format_args!("{}\n", format_args!($($text)*)))
    };
}

pub(crate) use say;
