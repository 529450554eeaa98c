//! What the view wants of others: of the relay, of the terminal, of the agent. Plain values.

use super::known::Part;

/// What the view wants of others.
#[derive(Debug, PartialEq)]
pub(super) enum Wish {
    /// Of the relay.
    Ask(Question),
    /// To the terminal's clipboard.
    Copy {
        bytes: Vec<u8>,
        what: String,
    },
    Save {
        name: String,
        bytes: Vec<u8>,
    },
    Open(String),
    Edit {
        id: String,
        file: Vec<u8>,
    },
    Mouse(bool),
    Suspend,
    Redraw,
    Quit,
}

/// What the relay is asked.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Question {
    /// The newest events, or those after a cursor.
    Page {
        q: String,
        after: Option<String>,
    },
    /// What the stream is to be about.
    Follow {
        q: String,
    },
    Event(String),
    Body {
        id: String,
        part: Part,
    },
    /// All of an event, to be edited.
    Whole(String),
    /// Once more to this agent; `edited` is what was changed, as JSON.
    Replay {
        id: String,
        edited: Option<String>,
    },
    Curl(String),
    Explain(String),
    Skip(String),
}
