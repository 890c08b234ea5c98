//! The `temper` binary: parses the command line, runs the command and returns its exit code.

mod args;
mod commands;
mod device_panics;
mod evaluation_args;
mod examples;
mod failure;
mod model_card;
mod render;
mod run_args;
mod serve_args;
mod shell_args;
mod tokenizer_args;

use std::io::Write as _;
use std::process::ExitCode;

use clap::FromArgMatches as _;
use fsio::out_of_memory::{self, ReportingAllocator};

use args::{Cli, Command, DataCommand, TokenizerCommand};

/// Notes refused allocations, so that they end in an error.
#[global_allocator]
static ALLOCATOR: ReportingAllocator = ReportingAllocator;

/// The stack that a command may need: as much as the main thread has by default, and enough for the deepest files that are
/// accepted.
const STACK_BYTES: usize = 8 << 20;

fn main() -> ExitCode {
    let clock = bench::Clock::start();
    if has_small_stack() {
        let thread = std::thread::Builder::new().name("main".to_owned()).stack_size(STACK_BYTES);
        // Where no thread is to be had, what the command needs more of them for will say so.
        if let Ok(thread) = thread.spawn(move || run(clock)) {
            return thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    }
    run(clock)
}

/// Whether the user's limit (`ulimit -s`) gives the main thread a smaller stack. Other threads have stacks of their own.
#[cfg(unix)]
fn has_small_stack() -> bool {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Stack);
    limit.current.is_some_and(|bytes| bytes < STACK_BYTES as u64)
}

#[cfg(not(unix))]
const fn has_small_stack() -> bool {
    false
}

fn run(clock: bench::Clock) -> ExitCode {
    // glibc returns large blocks to the system at each free unless configured otherwise, before the first tensor.
    kernels::configure_allocator();
    out_of_memory::report_refused_memory();
    kernels::find_cuda_toolkit();
    fsio::watchdog::watch_with(stop_late_operation);
    let prepared = train::signals::report_large_files();
    let matches = examples::command().try_get_matches();
    let cli = match matches.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => return wrong_arguments(&error),
    };
    let outcome = prepared.map_err(Into::into).and_then(|()| dispatch(cli, clock));
    // The last lines of progress must be on the screen before an error.
    render::stderr::flush();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Shows the parser's message, or the help that was asked for. An argument in it may have any characters.
fn wrong_arguments(error: &clap::Error) -> ExitCode {
    let text = error.render().to_string();
    let shown = render::printable::printable(&text);
    // Nobody is left to be told of a failure to write.
    let _ = if shown == text { error.print() } else { write!(std::io::stderr(), "{shown}") };
    u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
}

/// Ends the process when an operation on a foreign file takes too long. It runs inside a library and cannot be stopped.
#[expect(clippy::exit, reason = "nothing else ends a call that does not return")]
fn stop_late_operation(description: &str) {
    let hint = "the file is broken or malicious; use another one, or remove the row";
    let failure = failure::Failure::input(description, hint);
    render::stderr::flush();
    failure.report();
    std::process::exit(failure::WRONG_INPUT.into())
}

fn dispatch(cli: Cli, clock: bench::Clock) -> failure::Result<()> {
    kernels::check_kernel_setting()?;
    if let Some(threads) = cli.threads {
        kernels::set_threads(threads)?;
    }
    if computes(&cli.command) {
        kernels::start_threads()?;
    }
    if writes_directories(&cli.command) {
        // Best effort: what is left is removed by the next command that writes to the same place.
        let _ = train::signals::before_the_end(fsio::remove_own_tmps);
    }
    match cli.command {
        Command::Init(args) => commands::init::run(&args, cli.log, cli.threads),
        Command::Plan(args) => commands::plan::run(&args, cli.log, cli.threads),
        Command::Run(args) => commands::run::run(&args, cli.log, cli.threads),
        Command::Resume(args) => commands::run::resume(&args, cli.log, cli.threads),
        Command::Sweep(args) => commands::sweep::run(&args, cli.log, cli.threads),
        Command::Watch(args) => commands::watch::run(&args, cli.log),
        Command::Generate(args) => {
            device_panics::run(&args.device, || commands::generate::run(&args))
        }
        Command::Chat(args) => device_panics::run(&args.device, || commands::chat::run(&args)),
        Command::Serve(args) => device_panics::run(&args.device, || commands::serve::run(&args)),
        Command::Eval(args) => device_panics::run(&args.device, || commands::eval::run(&args)),
        Command::Compare(args) => {
            device_panics::run(&args.device, || commands::compare::run(&args))
        }
        Command::Score(args) => device_panics::run(&args.device, || commands::score::run(&args)),
        Command::Verify(args) => device_panics::run(&args.device, || commands::verify::run(&args)),
        Command::Export(args) => commands::export::run(&args),
        Command::Merge(args) => commands::merge::run(&args),
        Command::Bench(args) => {
            device_panics::run(&args.device, || commands::bench::run(&args, clock))
        }
        Command::Selftest(args) => {
            device_panics::run(&args.device, || commands::selftest::run(&args, clock))
        }
        Command::Devices => commands::devices::run(),
        Command::Runs(args) => commands::runs::run(&args, cli.log, cli.threads),
        Command::Report(args) => commands::report::run(&args),
        Command::Cache(args) => commands::cache::run(&args),
        Command::Get(args) => commands::get::run(&args, cli.log),
        Command::Data(DataCommand::Contamination(args)) => commands::contamination::run(&args),
        Command::Data(DataCommand::Inspect(args)) => {
            commands::inspect::run(&args, cli.log, cli.threads)
        }
        Command::Tokenizer(TokenizerCommand::Encode(args)) => commands::tokenizer::encode(&args),
        Command::Tokenizer(TokenizerCommand::Decode(args)) => commands::tokenizer::decode(&args),
        Command::Tokenizer(TokenizerCommand::Render(args)) => commands::tokenizer::render(&args),
        Command::Tokenizer(TokenizerCommand::Train(args)) => commands::tokenizer::train(&args),
        Command::Completions(args) => commands::shell::completions(&args),
        Command::Man(args) => commands::shell::man(&args),
    }
}

/// Whether a command writes a directory or a large file and does not wait for signals itself.
fn writes_directories(command: &Command) -> bool {
    matches!(
        command,
        Command::Export(_) | Command::Merge(_) | Command::Tokenizer(TokenizerCommand::Train(_))
    )
}

/// Whether a command computes on all threads, whose number no recipe sets.
fn computes(command: &Command) -> bool {
    match command {
        Command::Generate(_)
        | Command::Chat(_)
        | Command::Serve(_)
        | Command::Eval(_)
        | Command::Compare(_)
        | Command::Score(_)
        | Command::Verify(_)
        | Command::Export(_)
        | Command::Merge(_)
        | Command::Tokenizer(_) => true,
        Command::Init(_)
        | Command::Plan(_)
        | Command::Run(_)
        | Command::Resume(_)
        | Command::Sweep(_)
        | Command::Watch(_)
        | Command::Data(_)
        | Command::Bench(_)
        | Command::Selftest(_)
        | Command::Devices
        | Command::Runs(_)
        | Command::Report(_)
        | Command::Cache(_)
        | Command::Completions(_)
        | Command::Man(_)
        | Command::Get(_) => false,
    }
}
