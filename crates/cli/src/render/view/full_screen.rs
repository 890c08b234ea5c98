//! The view on the terminal: frames and keys.

use std::time::Duration;

use ratatui::Terminal;
use watch::{Look, Owner, Page, RunView, draw};

use super::super::stderr;
use super::backend::AnsiBackend;
use super::keys::Key;
use super::tty::{self, Input};

/// Lines by which a page of samples moves.
const PAGE_LINES: u16 = 10;

/// Actions of keys besides another page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    None,
    /// Another page.
    Redraw,
    /// Close the view.
    Close,
    /// Ctrl-C.
    Interrupt,
    /// Ctrl-Z.
    Suspend,
    /// The terminal is gone.
    Lost,
}

/// The open view. Dropping it restores the terminal.
pub(crate) struct FullScreen {
    terminal: Terminal<AnsiBackend>,
    page: Page,
    look: Look,
    owner: Owner,
}

impl FullScreen {
    /// Opens the view on `page`; `None` if the terminal does not permit it.
    pub(crate) fn open(owner: Owner, page: Page) -> Option<Self> {
        tty::size()?;
        if !tty::enter() {
            return None;
        }
        let backend = AnsiBackend::new(tty::size);
        match Terminal::new(backend) {
            Ok(terminal) => Some(Self { terminal, page, look: tty::look(), owner }),
            Err(_) => {
                tty::leave(true);
                None
            }
        }
    }

    /// The shown page, for opening the view again.
    pub(crate) fn page(&self) -> Page {
        self.page
    }

    /// Draws the run, unless the terminal has not taken the frame before.
    pub(crate) fn draw(&mut self, view: &RunView) {
        if !stderr::is_idle() {
            return;
        }
        let Self { terminal, page, look, owner } = self;
        // Only the size can fail, of a terminal that is gone: its keys say so.
        let _ = terminal.draw(|frame| draw(frame, view, page, *look, *owner));
        stderr::draw(&terminal.backend_mut().take());
    }

    /// Waits for keys, and turns pages.
    pub(crate) fn keys(&mut self, view: &RunView, patience: Duration) -> Action {
        let Input::Keys(keys) = tty::read_keys(patience) else { return Action::Lost };
        let mut outcome = Action::None;
        for key in keys {
            match press(&mut self.page, key, view) {
                Action::None => {}
                Action::Redraw => outcome = Action::Redraw,
                last @ (Action::Close | Action::Interrupt | Action::Suspend | Action::Lost) => {
                    return last;
                }
            }
        }
        outcome
    }
}

impl Drop for FullScreen {
    fn drop(&mut self) {
        tty::leave(tty::is_foreground());
    }
}

fn press(page: &mut Page, key: Key, view: &RunView) -> Action {
    let n_stages = view.n_stages().max(1);
    let stage = page.stage.unwrap_or(view.current());
    let turned = |stage: usize| Some(stage % n_stages).filter(|stage| *stage != view.current());
    match key {
        Key::Char('q') => return Action::Close,
        Key::Ctrl('c') => return Action::Interrupt,
        Key::Ctrl('z') => return Action::Suspend,
        Key::Ctrl('l') => {}
        Key::Tab | Key::Right => page.stage = turned(stage + 1),
        Key::BackTab | Key::Left => page.stage = turned(stage + n_stages - 1),
        Key::Char('s') => (page.samples, page.scroll) = (!page.samples, 0),
        Key::Char('l') => page.log = !page.log,
        Key::Up | Key::Char('k') => page.scroll = page.scroll.saturating_sub(1),
        Key::Down | Key::Char('j') => page.scroll = page.scroll.saturating_add(1),
        Key::PageUp => page.scroll = page.scroll.saturating_sub(PAGE_LINES),
        Key::PageDown => page.scroll = page.scroll.saturating_add(PAGE_LINES),
        Key::Escape => *page = Page::default(),
        Key::Char(_) | Key::Ctrl(_) => return Action::None,
    }
    Action::Redraw
}

#[cfg(test)]
mod tests {
    use watch::{Page, RunView, StageSteps};

    use super::super::keys::Key;
    use super::{Action, press};

    #[test]
    fn keys_turn_pages() {
        let stages =
            ["a", "b"].map(|name| StageSteps { name: name.into(), ..StageSteps::default() });
        let view = RunView::starting("run", &stages);
        let mut page = Page::default();
        assert_eq!(press(&mut page, Key::Tab, &view), Action::Redraw);
        assert_eq!(page.stage, Some(1));
        // The current stage is followed, whichever it will be.
        press(&mut page, Key::Tab, &view);
        assert_eq!(page.stage, None);
        press(&mut page, Key::BackTab, &view);
        assert_eq!(page.stage, Some(1));
        for key in [Key::Char('s'), Key::Down, Key::PageDown, Key::Up] {
            press(&mut page, key, &view);
        }
        assert!(page.samples && page.scroll == 10);
        press(&mut page, Key::Escape, &view);
        assert_eq!(page, Page::default());
        assert_eq!(press(&mut page, Key::Char('q'), &view), Action::Close);
        assert_eq!(press(&mut page, Key::Char('x'), &view), Action::None);
        assert_eq!(press(&mut page, Key::Tab, &RunView::new("empty")), Action::Redraw);
    }
}
