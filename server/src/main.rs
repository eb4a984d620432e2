//! The `amphora` binary.

fn main() -> std::process::ExitCode {
    amphora_server::cli::main()
}
