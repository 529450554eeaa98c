//! What each key asks for: those of the page, and those that only a terminal has. Pure.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// What a person wants of the view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Next,
    Previous,
    PageDown,
    PageUp,
    Newest,
    Oldest,
    NextFailure,
    PreviousFailure,
    Search,
    Preset(usize),
    Whole,
    Back,
    OtherPane,
    NextSide,
    NextForm,
    NextAttempt,
    PreviousAttempt,
    Follow,
    Pause,
    Replay,
    Edit,
    Explain,
    Curl,
    Copy,
    Save,
    OpenPage,
    Mark,
    Compare,
    Backlog,
    Skip,
    Log,
    Help,
    Mouse,
    Redraw,
    Suspend,
    Quit,
    Yes,
}

/// The action of a key. `after_g` is whether `g` was pressed before it.
pub(super) fn action(key: &KeyEvent, after_g: bool) -> Option<Action> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return match key.code {
            KeyCode::Char('c') => Some(Action::Quit),
            KeyCode::Char('z') => Some(Action::Suspend),
            KeyCode::Char('l') => Some(Action::Redraw),
            KeyCode::Char('d' | 'f') => Some(Action::PageDown),
            KeyCode::Char('u' | 'b') => Some(Action::PageUp),
            _ => None,
        };
    }
    Some(match key.code {
        KeyCode::Char('g') if after_g => Action::Newest,
        KeyCode::Char('j') | KeyCode::Down => Action::Next,
        KeyCode::Char('k') | KeyCode::Up => Action::Previous,
        KeyCode::PageDown => Action::PageDown,
        KeyCode::PageUp => Action::PageUp,
        KeyCode::Home => Action::Newest,
        KeyCode::Char('G') | KeyCode::End => Action::Oldest,
        KeyCode::Char('n') => Action::NextFailure,
        KeyCode::Char('N') => Action::PreviousFailure,
        KeyCode::Char('/') => Action::Search,
        KeyCode::Char(digit @ '1'..='5') => Action::Preset(digit as usize - '1' as usize),
        KeyCode::Enter => Action::Whole,
        KeyCode::Esc => Action::Back,
        KeyCode::Tab => Action::OtherPane,
        KeyCode::Char('t') => Action::NextSide,
        KeyCode::Char('v') => Action::NextForm,
        KeyCode::Char(']') => Action::NextAttempt,
        KeyCode::Char('[') => Action::PreviousAttempt,
        KeyCode::Char('f') => Action::Follow,
        KeyCode::Char('p') => Action::Pause,
        KeyCode::Char('r') => Action::Replay,
        KeyCode::Char('e') => Action::Edit,
        KeyCode::Char('w') => Action::Explain,
        KeyCode::Char('c') => Action::Curl,
        KeyCode::Char('Y') => Action::Yes,
        KeyCode::Char('y') => Action::Copy,
        KeyCode::Char('s') => Action::Save,
        KeyCode::Char('S') => Action::Skip,
        KeyCode::Char('o') => Action::OpenPage,
        KeyCode::Char('x' | ' ') => Action::Mark,
        KeyCode::Char('=') => Action::Compare,
        KeyCode::Char('b') => Action::Backlog,
        KeyCode::Char('l') => Action::Log,
        KeyCode::Char('?') => Action::Help,
        KeyCode::Char('m') => Action::Mouse,
        KeyCode::Char('q') => Action::Quit,
        _ => return None,
    })
}

/// The line at the bottom, as much of it as fits: each part is a key and what it does.
pub(super) const SHORT: [&str; 9] =
    ["r replay", "e edit", "Enter whole", "/ search", "o page", "c curl", "y copy", "? keys", "q quit"];

/// The same where there is room.
pub(super) const LONG: [&str; 14] = [
    "j k move",
    "Enter whole",
    "r replay",
    "e edit in $EDITOR",
    "x mark",
    "= compare",
    "t side",
    "v form",
    "/ search",
    "n next failure",
    "c curl",
    "y copy",
    "o page",
    "? keys",
];

/// All of them, for `?`.
pub(super) const HELP: [&str; 22] = [
    "j k, arrows    next, previous event; in the detail: scroll",
    "gg G           newest, oldest",
    "n N            next, previous failure",
    "Enter Esc      the event on the whole screen; back",
    "Tab            list or detail",
    "/              search; Enter keeps it, Esc leaves it as it was",
    "1 2 3 4 5      all, failing, waiting, refused, replays",
    "f p            follow the newest; pause",
    "r              replay to this agent",
    "e              edit in $VISUAL or $EDITOR, then replay",
    "w              why it was refused",
    "t v            next side: request, answer, headers, attempts; next form: pretty, raw, hex",
    "[ ]            previous, next attempt",
    "x =            mark; compare the two that are marked",
    "c              copy as curl",
    "y s            copy the body; save the body to a file",
    "o              open this event on the page",
    "b S            what waits; skip it",
    "l              the log",
    "m              give the mouse to the view, or back to the terminal",
    "Ctrl+L Ctrl+Z  draw again; suspend",
    "q Ctrl+C       finish what runs and end; again: end at once",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g_alone_does_nothing_and_control_is_told_apart() {
        let key = |char: char, modifiers| KeyEvent::new(KeyCode::Char(char), modifiers);
        assert_eq!(action(&key('g', KeyModifiers::NONE), false), None);
        assert_eq!(action(&key('g', KeyModifiers::NONE), true), Some(Action::Newest));
        assert_eq!(action(&key('c', KeyModifiers::CONTROL), false), Some(Action::Quit));
        assert_eq!(action(&key('c', KeyModifiers::NONE), false), Some(Action::Curl));
        assert_eq!(action(&key('5', KeyModifiers::NONE), false), Some(Action::Preset(4)));
    }
}
