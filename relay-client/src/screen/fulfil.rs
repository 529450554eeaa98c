//! Does what the view wishes, on the thread that owns the terminal.

use std::io;

use jiff::Timestamp;
use relay_program::process::Asked;

use super::{
    errands, file,
    news::News,
    show::ViewThread,
    term,
    wish::{Question, Wish},
};

/// Bytes that are copied; more is for a file.
const MAX_COPY_BYTES: usize = 74_000;

impl ViewThread {
    /// Does what the view wishes; whether it has to be drawn again.
    pub(super) fn fulfil(&mut self) -> io::Result<bool> {
        let mut changed = false;
        while let Some(wish) = self.view.poll_wish() {
            changed = true;
            match wish {
                Wish::Ask(question) => {
                    if self.questions.try_send(question).is_err() {
                        self.view.handle_news(
                            News::Said("the relay is busy with other questions".to_owned()),
                            Timestamp::now(),
                        );
                    }
                }
                Wish::Quit => {
                    let _ = self.asked.try_send(Asked::Stop);
                }
                Wish::Redraw => self.taken.redraw()?,
                Wish::Mouse(wanted) => self.taken.mouse(wanted)?,
                Wish::Suspend => self.suspend()?,
                Wish::Copy { bytes, what } => self.view.note = copied(&bytes, &what),
                Wish::Save { name, bytes } => {
                    self.view.note =
                        errands::save(&name, &bytes).map_or_else(|why| why, |name| format!("saved as {name}"));
                }
                Wish::Open(id) => self.open(&id),
                Wish::Edit { id, file } => self.edit(id, &file)?,
            }
        }
        Ok(changed)
    }

    fn open(&mut self, id: &str) {
        self.view.note = match &self.view.page {
            None => "there is no page here: start with --inspect-addr".to_owned(),
            Some(page) => {
                // The key stands behind a `#`, which is not sent.
                let (base, key) = page.split_once("/#").unwrap_or((page, ""));
                let address = format!("{base}/e/{id}#{key}");
                if errands::open(&address) { format!("opened {id}") } else { address }
            }
        };
    }

    fn edit(&mut self, id: String, before: &[u8]) -> io::Result<()> {
        self.gate.close();
        term::give_back();
        let edited = errands::edit(&id, before);
        self.taken.retake()?;
        self.gate.open();
        let edit = edited.and_then(|after| file::edit(before, &after));
        self.view.note = match edit {
            Ok(None) => "unchanged, so nothing was sent".to_owned(),
            Err(why) => why,
            Ok(Some(edit)) => {
                let edited = serde_json::to_string(&edit).ok();
                self.view.wish(Wish::Ask(Question::Replay { id, edited }));
                "replaying what you edited".to_owned()
            }
        };
        Ok(())
    }
}

fn copied(bytes: &[u8], what: &str) -> String {
    if bytes.len() > MAX_COPY_BYTES {
        return format!("{what} is too much to copy; s saves it");
    }
    match term::copy(bytes) {
        Ok(()) => format!("copied {what}, if the terminal takes it; s saves a body to a file"),
        Err(error) => format!("nothing was copied: {error}"),
    }
}
