//! The program `image-losses`.

fn main() -> std::process::ExitCode {
    image_losses::cli::main()
}
