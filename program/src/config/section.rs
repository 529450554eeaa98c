//! A table of what was typed: its values with their places, judged as they are read.
//!
//! Each table says which keys it knows, as words; others are mistakes, with a suggestion. What is wrong goes into the report and
//! a default takes its place, so that one run names everything.

use std::{
    cell::RefCell,
    fmt::Display,
    ops::{Range, RangeInclusive},
    time::Duration,
};

use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue},
};
use toml_edit::{Array, Value};

use super::{
    Place, Report, Wrong, duration, show_duration, show_size,
    shown::{Entry, Step},
    size,
};
use crate::suggest::suggest;

/// A typed value, and where it stands.
#[derive(Clone, Debug)]
pub struct Typed<T> {
    pub value: T,
    pub place: Place,
}

/// A table of a text, or of what flags say; one that was not typed is empty.
#[derive(Debug)]
pub struct Section<'t> {
    report: &'t Report<'t>,
    text: usize,
    table: Option<&'t DeTable<'t>>,
    span: Option<Range<usize>>,
    /// The flag that stands for the whole table.
    flag: Option<&'static str>,
    /// Its path as people are told of it.
    key: String,
    path: Vec<Step>,
    /// Flags that stand above what was typed here.
    above: Vec<(&'static str, &'static str, &'t str)>,
    /// Whether there is a key that the table does not know.
    strange: bool,
    /// Values whose default comes from somewhere else than the program.
    given: RefCell<Vec<(&'static str, &'static str)>>,
}

impl<'t> Section<'t> {
    pub fn root(report: &'t Report<'t>, text: usize, table: &'t Spanned<DeTable<'t>>, keys: &str) -> Self {
        Self { text, table: Some(table.get_ref()), ..Self::empty(report) }.knowing(keys)
    }

    /// A row of a list that a flag stands for.
    pub fn of_flag(report: &'t Report<'t>, list: &'static str, name: &str, flag: &'static str) -> Self {
        let path = vec![Step::Row(list, next(report))];
        Self { flag: Some(flag), key: format!("{list}.{name}"), path, ..Self::empty(report) }
    }

    fn empty(report: &'t Report<'t>) -> Self {
        let (key, path, above, given) = (String::new(), Vec::new(), Vec::new(), RefCell::default());
        Self { report, text: 0, table: None, span: None, flag: None, key, path, above, strange: false, given }
    }

    /// With a flag above one of its keys.
    #[must_use]
    pub fn under(mut self, name: &'static str, flag: &'static str, value: Option<&'t str>) -> Self {
        self.above.extend(value.map(|value| (name, flag, value)));
        self
    }

    pub fn section(&self, name: &'static str, keys: &str) -> Self {
        let typed = self.typed(name);
        let table = typed.and_then(|typed| self.as_table(name, typed));
        let path = [&self.path[..], &[Step::Table(name)]].concat();
        let (span, key) = (typed.map(Spanned::span).or(self.span.clone()), self.path_to(name));
        let (flag, text) = (self.flag, self.text);
        Self { text, table, span, flag, key, path, ..Self::empty(self.report) }.knowing(keys)
    }

    /// The tables of a list in this one. People know them by what stands under `named`.
    pub fn rows(&self, name: &'static str, named: &str, keys: &str) -> Vec<Self> {
        let row = |row: &'t Spanned<DeValue<'t>>| {
            let table = self.as_table(name, row)?;
            let mut key = self.path_to(name);
            if let Some(own) = table.get(named).and_then(|own| own.get_ref().as_str()) {
                key = format!("{key}.{own}");
            }
            let path = [&self.path[..], &[Step::Row(name, next(self.report))]].concat();
            let (text, span) = (self.text, Some(row.span()));
            Some(Self { text, table: Some(table), span, key, path, ..Self::empty(self.report) }.knowing(keys))
        };
        self.array(name).into_iter().flatten().filter_map(row).collect()
    }

    pub fn report(&self) -> &'t Report<'t> {
        self.report
    }

    pub fn here(&self) -> Place {
        match self.flag {
            Some(flag) => Place::flag(flag),
            None => self.report.place(self.text, &*self.key, self.span.clone()),
        }
    }

    /// One of its keys; where that is not there, the table's own line.
    pub fn place(&self, name: &str) -> Place {
        if let Some(flag) = self.flag.or(self.above(name).map(|(flag, _)| flag)) {
            return Place::flag(flag);
        }
        let span = self.typed(name).map(Spanned::span).or(self.span.clone());
        self.report.place(self.text, self.path_to(name), span)
    }

    /// Whether a key was typed, here or as a flag.
    pub fn has(&self, name: &str) -> bool {
        self.typed(name).is_some() || self.above(name).is_some()
    }

    pub fn is_typed(&self) -> bool {
        self.table.is_some()
    }

    pub fn error(&self, name: &str, message: impl Into<String>, help: impl Into<String>) {
        self.report.error(&self.place(name), message, help);
    }

    pub fn typed(&self, name: &str) -> Option<&'t Spanned<DeValue<'t>>> {
        self.table?.get(name)
    }

    pub fn text(&self, name: &str) -> Option<Typed<&'t str>> {
        if let Some((flag, value)) = self.above(name) {
            return Some(Typed { value, place: Place::flag(flag) });
        }
        self.as_text(name, self.typed(name)?)
    }

    pub fn texts(&self, name: &str) -> Vec<Typed<&'t str>> {
        self.array(name).into_iter().flatten().filter_map(|item| self.as_text(name, item)).collect()
    }

    /// Texts by names of the user's own.
    pub fn named_texts(&self, name: &'static str) -> Vec<(String, Typed<&'t str>)> {
        let table = self.section(name, "");
        let named = |key: &str, value| Some((key.to_owned(), table.as_text(key, value)?));
        table.table.into_iter().flatten().filter_map(|(key, value)| named(key.get_ref(), value)).collect()
    }

    pub fn items(&self, name: &str) -> Vec<Typed<&'t DeValue<'t>>> {
        let item = |item: &'t Spanned<_>| Typed { value: item.get_ref(), place: self.place_of(name, item.span()) };
        self.array(name).into_iter().flatten().map(item).collect()
    }

    pub fn names(&self) -> Vec<String> {
        self.table.into_iter().flatten().map(|(key, _)| key.get_ref().to_string()).collect()
    }

    /// Notes the keys that have to be there and are not. Where one is not known, it was probably one of them.
    pub fn require(&self, names: &[&str]) {
        for name in names.iter().filter(|name| !self.strange && !self.has(name)) {
            let place = self.report.place(self.text, self.path_to(name), self.span.clone().or(Some(0..0)));
            self.report.error(&place, format!("missing field `{name}`"), "");
        }
    }

    pub fn integer(&self, name: &str) -> Option<Typed<i64>> {
        let typed = self.typed(name)?;
        let DeValue::Integer(number) = typed.get_ref() else {
            self.misshapen(name, typed, "a whole number");
            return None;
        };
        let Ok(value) = i64::from_str_radix(number.as_str(), number.radix()) else {
            self.error(name, format!("{number} is out of bounds"), "");
            return None;
        };
        Some(Typed { value, place: self.place(name) })
    }

    /// A text made into a value. A mistake is noted, and nothing comes of it.
    pub fn read<T, E: Into<Wrong>>(&self, name: &str, parse: impl FnOnce(&'t str) -> Result<T, E>) -> Option<T> {
        let typed = self.text(name)?;
        self.judge(&typed.place, parse(typed.value))
    }

    /// A list of texts made into values; those with mistakes are left out.
    pub fn read_all<T, E: Into<Wrong>>(&self, name: &str, parse: impl Fn(&'t str) -> Result<T, E>) -> Vec<T> {
        self.texts(name).into_iter().filter_map(|typed| self.judge(&typed.place, parse(typed.value))).collect()
    }

    /// What came of a value, or nothing and a mistake.
    pub fn judge<T, E: Into<Wrong>>(&self, place: &Place, judged: Result<T, E>) -> Option<T> {
        let Wrong { message, help } = match judged {
            Ok(value) => return Some(value),
            Err(wrong) => wrong.into(),
        };
        self.report.error(place, message, help);
        None
    }

    /// A value that runs where it was typed.
    pub fn value<T: Display, E: Into<Wrong>>(
        &self,
        name: &'static str,
        parse: impl FnOnce(&'t str) -> Result<T, E>,
    ) -> Option<T> {
        let value = self.read(name, parse);
        self.show_if(name, value.as_ref().map(ToString::to_string));
        value
    }

    pub fn value_or<T: Display, E: Into<Wrong>>(
        &self,
        name: &'static str,
        default: T,
        parse: impl FnOnce(&'t str) -> Result<T, E>,
    ) -> T {
        let value = self.read(name, parse).unwrap_or(default);
        self.show(name, value.to_string());
        value
    }

    pub fn list<T: Display, E: Into<Wrong>>(&self, name: &str, parse: impl Fn(&'t str) -> Result<T, E>) -> Vec<T> {
        let values = self.read_all(name, parse);
        self.show_all(name, values.iter().map(ToString::to_string));
        values
    }

    /// One of the words, the first if there is none. `what` is what another word is not.
    pub fn word<T: Copy>(&self, name: &'static str, what: &str, words: &[(&'static str, T)]) -> T {
        let find = |text: &str| {
            words.iter().find(|(word, _)| *word == text).copied().ok_or_else(|| {
                let quoted: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
                let (last, others) = quoted.split_last().map_or(("", &[][..]), |(last, others)| (last, others));
                Wrong::new(format!("\"{text}\" is not {what}"), format!("write {} or {last}", others.join(", ")))
            })
        };
        let (word, value) = self.read(name, find).unwrap_or(words[0]);
        self.show(name, word);
        value
    }

    pub fn duration(&self, name: &'static str, default: Duration, bounds: RangeInclusive<Duration>) -> Duration {
        let value = self.read(name, |text| within(text, duration(text)?, &bounds, show_duration)).unwrap_or(default);
        self.show(name, show_duration(value));
        value
    }

    pub fn size(&self, name: &'static str, default: u64, bounds: RangeInclusive<u64>) -> u64 {
        let value = self.read(name, |text| within(text, size(text)?, &bounds, show_size)).unwrap_or(default);
        self.show(name, show_size(value));
        value
    }

    /// A size within bounds, where one was typed.
    pub fn size_if(&self, name: &'static str, bounds: RangeInclusive<u64>) -> Option<u64> {
        let value = self.read(name, |text| within(text, size(text)?, &bounds, show_size));
        self.show_if(name, value.map(show_size));
        value
    }

    pub fn number<T>(&self, name: &'static str, default: T, bounds: RangeInclusive<T>) -> T
    where
        T: TryFrom<i64> + TryInto<i64> + PartialOrd + Display + Copy,
    {
        let value = self.number_if(name, bounds);
        if value.is_none() {
            self.show(name, default.try_into().unwrap_or(i64::MAX));
        }
        value.unwrap_or(default)
    }

    /// A number within bounds, where one was typed.
    pub fn number_if<T>(&self, name: &'static str, bounds: RangeInclusive<T>) -> Option<T>
    where
        T: TryFrom<i64> + TryInto<i64> + PartialOrd + Display + Copy,
    {
        let typed = self.integer(name)?;
        let value = T::try_from(typed.value).ok().filter(|value| bounds.contains(value));
        match value {
            Some(value) => self.show(name, value.try_into().unwrap_or(i64::MAX)),
            None => {
                let help = format!("from {} to {} is allowed", bounds.start(), bounds.end());
                self.report.error(&typed.place, format!("{} is out of bounds", typed.value), help);
            }
        }
        value
    }

    pub fn flag(&self, name: &'static str, default: bool) -> bool {
        let typed = self.typed(name);
        let value = typed.and_then(|typed| typed.get_ref().as_bool());
        if let Some(other) = typed.filter(|_| value.is_none()) {
            self.misshapen(name, other, "true or false");
        }
        let value = value.unwrap_or(default);
        self.show(name, value);
        value
    }

    /// From now on the default of a key comes from `source`.
    pub fn give(&self, name: &'static str, source: &'static str) {
        self.given.borrow_mut().push((name, source));
    }

    /// Notes what runs under a key, in the form in which it would be typed.
    pub fn show(&self, name: &str, value: impl Into<Value>) {
        let given = || self.given.borrow().iter().find(|(known, _)| *known == name).map(|(_, source)| *source);
        let source = match self.flag {
            Some(flag) if matches!(name, "name" | "verify") => flag.to_owned(),
            _ if self.has(name) => self.report.source(&self.place(name)),
            _ => given().unwrap_or("default").to_owned(),
        };
        let entry = Entry { path: self.path.clone(), name: name.to_owned(), value: value.into(), source };
        self.report.entries.borrow_mut().push(entry);
    }

    pub fn show_if(&self, name: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.show(name, value);
        }
    }

    pub fn show_all(&self, name: &str, values: impl IntoIterator<Item = String>) {
        self.show(name, Array::from_iter(values));
    }

    fn above(&self, name: &str) -> Option<(&'static str, &'t str)> {
        self.above.iter().find(|(known, ..)| *known == name).map(|(_, flag, value)| (*flag, *value))
    }

    fn path_to(&self, name: &str) -> String {
        if self.key.is_empty() { name.to_owned() } else { format!("{}.{name}", self.key) }
    }

    fn array(&self, name: &str) -> Option<&'t DeArray<'t>> {
        let typed = self.typed(name)?;
        let list = typed.get_ref().as_array();
        if list.is_none() {
            self.misshapen(name, typed, "a list");
        }
        list
    }

    fn as_text(&self, name: &str, typed: &'t Spanned<DeValue<'t>>) -> Option<Typed<&'t str>> {
        let DeValue::String(value) = typed.get_ref() else {
            self.misshapen(name, typed, "a string");
            return None;
        };
        Some(Typed { value, place: self.place_of(name, typed.span()) })
    }

    fn as_table(&self, name: &str, typed: &'t Spanned<DeValue<'t>>) -> Option<&'t DeTable<'t>> {
        let table = typed.get_ref().as_table();
        if table.is_none() {
            self.misshapen(name, typed, "a table");
        }
        table
    }

    fn place_of(&self, name: &str, span: Range<usize>) -> Place {
        self.report.place(self.text, self.path_to(name), Some(span))
    }

    /// Notes a value of another shape. A text is not repeated: it may be a secret in the wrong place.
    fn misshapen(&self, name: &str, typed: &Spanned<DeValue<'_>>, expected: &str) {
        let place = self.place_of(name, typed.span());
        let kind = match typed.get_ref() {
            DeValue::String(_) => {
                let help = if expected == "a list" { "write a list, [\"…\"]" } else { "" };
                return self.report.error(&place, format!("a text stands where {expected} is expected"), help);
            }
            DeValue::Integer(number) => format!("integer `{number}`"),
            DeValue::Float(number) => format!("floating point `{number}`"),
            DeValue::Boolean(value) => format!("boolean `{value}`"),
            DeValue::Datetime(_) => "a date".to_owned(),
            DeValue::Array(_) => "a list".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
        };
        let bare = matches!(typed.get_ref(), DeValue::Integer(_) | DeValue::Float(_)) && expected == "a string";
        let help = "write it in quotes, with a unit where it is a time or a size (\"30s\", \"25MiB\")";
        let message = format!("invalid type: {kind}, expected {expected}");
        self.report.error(&place, message, if bare { help } else { "" });
    }

    /// Notes the keys that this table does not know; where none is known, all are the user's own.
    fn knowing(mut self, known: &str) -> Self {
        let known: Vec<&str> = known.split_whitespace().collect();
        let keys = self.table.into_iter().flatten().map(|(key, _)| key);
        for key in keys.filter(|key| !known.is_empty() && !known.contains(&&**key.get_ref())) {
            let typed = key.get_ref();
            let help = suggest(typed, known.iter().copied());
            let help = help.unwrap_or_else(|| format!("known here: {}", known.join(", ")));
            let place = self.place_of(typed, key.span());
            self.report.error(&place, format!("unknown key \"{typed}\""), help);
            self.strange = true;
        }
        self
    }
}

fn within<T: PartialOrd + Copy>(
    text: &str,
    value: T,
    bounds: &RangeInclusive<T>,
    show: fn(T) -> String,
) -> Result<T, Wrong> {
    let help = || format!("from {} to {} is allowed", show(*bounds.start()), show(*bounds.end()));
    let wrong = || Wrong::new(format!("\"{text}\" is out of bounds"), help());
    if bounds.contains(&value) { Ok(value) } else { Err(wrong()) }
}

/// A number that no other row has.
fn next(report: &Report<'_>) -> usize {
    report.rows.set(report.rows.get() + 1);
    report.rows.get()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Origin, Problem, Problems, Shown, Text};

    /// Reads a small configuration.
    fn read(text: &str) -> Result<(Shown, Vec<Problem>), Problems> {
        let texts = [Text::new(Origin::File("/etc/relay.toml".into()), text.to_owned())];
        let table = texts[0].parse()?;
        let report = Report::new(&texts);
        let root = Section::root(&report, 0, &table, "version server endpoint");
        let second = Duration::from_secs(1);
        let server = root.section("server", "listen workers").under("listen", "--listen", Some("flagged"));
        server.value("listen", |text| Ok::<_, Wrong>(text.to_owned()));
        server.number("workers", 4, 1..=8);
        for row in root.rows("endpoint", "name", "name deadline hosts limits") {
            row.value("name", |text| Ok::<_, Wrong>(text.to_owned()));
            row.give("deadline", "elsewhere");
            row.duration("deadline", second, second..=60 * second);
            row.section("limits", "size").size("size", 1 << 20, 1..=1 << 30);
            row.list("hosts", |text| Ok::<_, Wrong>(text.to_owned()));
        }
        report.finish()
    }

    fn wrong(text: &str) -> String {
        read(text).unwrap_err().to_string()
    }

    #[test]
    fn what_runs_is_shown_with_where_it_came_from() {
        let (shown, _) =
            read("[[endpoint]]\nname = \"a\"\nhosts = [\"h\"]\n[[endpoint]]\nname = \"b\"\ndeadline = \"2s\"\n")
                .unwrap();
        assert_eq!(
            shown.to_toml(),
            "[server]\nlisten = \"flagged\"  # --listen\nworkers = 4  # default\n\n[[endpoint]]\n\
             name = \"a\"  # relay.toml:2\ndeadline = \"1s\"  # elsewhere\nhosts = [\"h\"]  # relay.toml:3\n\n\
             [endpoint.limits]\nsize = \"1MiB\"  # default\n\n[[endpoint]]\nname = \"b\"  # relay.toml:5\n\
             deadline = \"2s\"  # relay.toml:6\nhosts = []  # default\n\n[endpoint.limits]\nsize = \"1MiB\"  # default\n"
        );
        let sources = shown.sources();
        assert_eq!(sources["endpoint.a.deadline"], "elsewhere");
        assert_eq!(sources["endpoint.b.limits.size"], "default");
        assert_eq!(shown.to_json()["endpoint"][1]["deadline"], "2s");
        assert_eq!(shown.row("endpoint", "b").unwrap()["limits"]["size"], "1MiB");
    }

    #[test]
    fn unknown_keys_are_named_with_their_line_and_a_suggestion() {
        assert_eq!(
            wrong("version = 1\n[server]\nlisen = \"x\"\n"),
            "/etc/relay.toml:3: server.lisen: unknown key \"lisen\"; did you mean \"listen\"?"
        );
        assert_eq!(
            wrong("[[endpoint]]\nname = \"a\"\nlimits = { width = 1 }\n"),
            "/etc/relay.toml:3: endpoint.a.limits.width: unknown key \"width\"; known here: size"
        );
        assert_eq!(
            wrong("[serer]\n[[endpoint]]\nnme = \"b\"\n"),
            "/etc/relay.toml:1: serer: unknown key \"serer\"; did you mean \"server\"?\n\
             /etc/relay.toml:3: endpoint.nme: unknown key \"nme\"; did you mean \"name\"?"
        );
    }

    #[test]
    fn wrong_shapes_are_explained_and_values_are_not_repeated() {
        assert_eq!(
            wrong("[[endpoint]]\nname = \"a\"\ndeadline = 30\n"),
            "/etc/relay.toml:3: endpoint.a.deadline: invalid type: integer `30`, expected a string; \
             write it in quotes, with a unit where it is a time or a size (\"30s\", \"25MiB\")"
        );
        assert_eq!(
            wrong("[[endpoint]]\nname = \"a\"\nhosts = \"hunter2\"\n"),
            "/etc/relay.toml:3: endpoint.a.hosts: a text stands where a list is expected; write a list, [\"…\"]"
        );
        for leak in [
            "[[endpoint]]\nname = \"a\"\nhosts = \"hunter2\n",
            "[server]\nworkers = \"hunter2\"\n",
            "server = \"hunter2\"",
        ] {
            assert!(!wrong(leak).contains("hunter2"));
        }
        assert!(
            wrong("[server]\nworkers = 9\n").contains("server.workers: 9 is out of bounds; from 1 to 8 is allowed")
        );
    }

    #[test]
    fn syntax_errors_and_repeated_keys_name_the_line() {
        assert!(wrong("version = 1\nlisten = \n").starts_with("/etc/relay.toml:2: "));
        let twice = wrong("version = 1\nversion = 1\n");
        assert!(twice.starts_with("/etc/relay.toml:2: ") && twice.contains("duplicate key"), "{twice}");
    }
}
