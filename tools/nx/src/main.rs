//! The command line: see the library.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    nx::main()
}
