//! The `amphora` binary.

/// Serves RocksDB's C++ too. The C library's allocator keeps an arena a thread and gives little of it back:
/// under a write load a node took twice the memory.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    amphora_server::cli::main()
}
