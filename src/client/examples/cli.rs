//! Scratch.
fn main() -> std::process::ExitCode {
    let mut args = std::env::args_os();
    let me = args.next().unwrap();
    if me.to_string_lossy().ends_with("crosskit") {
        crosskit_client::crosskit(args, || Box::pin(async { Err("no embedded daemon in this program".into()) }))
    } else { crosskit_client::buildctl(args) }
}
