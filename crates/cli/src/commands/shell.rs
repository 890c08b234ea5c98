//! `temper completions` and `temper man`: the command line for shells and for `man`.

use clap::Command;
use clap_complete::Shell;

use super::{print, print_as_is};
use crate::args::{CompletionsArgs, ManArgs, ShellName};
use crate::examples::command;
use crate::failure::{Failure, Result};

/// First line of every page, by which an earlier one is known from a page of somebody else.
const PAGE_START: &str = ".\\\" A page of Temper, written by temper man.\n";

/// Prints a shell's script of completions.
pub(crate) fn completions(args: &CompletionsArgs) -> Result<()> {
    let shell = match args.shell {
        ShellName::Bash => Shell::Bash,
        ShellName::Zsh => Shell::Zsh,
        ShellName::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "temper", &mut script);
    print_as_is(&String::from_utf8_lossy(&script))
}

/// Writes a page for each command. Earlier pages are replaced, and no other files.
pub(crate) fn man(args: &ManArgs) -> Result<()> {
    fsio::create_dir_all(&args.dir)?;
    let mut all = command();
    all.build();
    let mut pages = Vec::new();
    add_pages(&all, "temper", &mut pages)?;
    let n_pages = pages.len();
    let path = |name: &str| args.dir.join(format!("{name}.1"));
    for (name, _) in &pages {
        fsio::check_replaceable(path(name), PAGE_START.as_bytes())?;
    }
    for (name, page) in pages {
        fsio::write_atomic(path(&name), page)?;
    }
    print(&format!("{n_pages} pages in {}\n", args.dir.display()))
}

/// Adds the page of a command, named as in `temper-data-inspect`, and those of its commands.
fn add_pages(command: &Command, name: &str, pages: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    let mut page = PAGE_START.as_bytes().to_vec();
    let rendered = clap_mangen::Man::new(command.clone()).title(name).render(&mut page);
    rendered.map_err(|error| {
        Failure::input(format!("cannot render the page of `{name}`: {error}"), "report it")
    })?;
    pages.push((name.to_owned(), page));
    for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
        add_pages(inner, &format!("{name}-{}", inner.get_name()), pages)?;
    }
    Ok(())
}
