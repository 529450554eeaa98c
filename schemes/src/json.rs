//! Follows a JSON pointer through a body without building the document.
//!
//! Invariants: memory does not grow with the document, only with what is found; a member on the way
//! that stands there twice is an error, also in other letters (many readers take `A` for `a`), so that
//! no two readers can see different values; the whole text must be one JSON value.

use std::{borrow::Cow, fmt};

use serde::{
    Deserializer as _,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Deserializer, value::RawValue};

use crate::locate::Unreadable;

/// Most values that one pointer may find; a body with more is refused.
pub(crate) const MAX_FOUND: usize = 1000;

/// A JSON pointer (RFC 6901), in which `*` stands for every element of a list, and for no member of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pointer {
    pub(crate) segments: Vec<String>,
    /// The pointer as it was written.
    pub(crate) text: String,
}

impl Pointer {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let rest = if text.is_empty() { None } else { Some(text.strip_prefix('/')?) };
        let segments = rest.into_iter().flat_map(|rest| rest.split('/'));
        let segments = segments.map(|segment| segment.replace("~1", "/").replace("~0", "~")).collect();
        Some(Self { segments, text: text.to_owned() })
    }

    pub(crate) fn has_wildcard(&self) -> bool {
        self.wildcards() > 0
    }

    pub(crate) fn wildcards(&self) -> usize {
        self.segments.iter().filter(|segment| *segment == "*").count()
    }

    /// The pointer to the elements of its last wildcard, if it has one.
    pub(crate) fn list(&self) -> Option<Self> {
        let at = self.segments.iter().rposition(|segment| segment == "*")?;
        Some(Self { segments: self.segments[..=at].to_vec(), text: self.text.clone() })
    }
}

/// Every value that the pointer finds, as raw JSON.
pub(crate) fn find<'a>(text: &'a [u8], pointer: &Pointer) -> Result<Vec<&'a RawValue>, Unreadable> {
    let (mut found, mut ambiguous) = (Vec::new(), false);
    let mut deserializer = Deserializer::from_slice(text);
    let follow = Follow { path: &pointer.segments, found: &mut found, ambiguous: &mut ambiguous };
    let read = follow.deserialize(&mut deserializer).and_then(|()| deserializer.end());
    match read {
        _ if ambiguous => Err(Unreadable::Doubled),
        Ok(()) => Ok(found),
        Err(_) => Err(Unreadable::Malformed),
    }
}

/// The text of a scalar: a string decoded, a number or boolean as it stands; `None` for null.
/// Lists and objects give their raw text.
pub(crate) fn text_of(value: &RawValue) -> Option<Cow<'_, [u8]>> {
    let raw = value.get();
    match raw.as_bytes().first() {
        Some(b'"') => serde_json::from_str::<String>(raw).ok().map(|text| Cow::Owned(text.into_bytes())),
        Some(b'n') => None,
        _ => Some(Cow::Borrowed(raw.as_bytes())),
    }
}

/// The names of the members of a top-level object, in order, at most `limit`.
pub(crate) fn member_names(text: &[u8], limit: usize) -> Option<Vec<String>> {
    struct Names(usize);
    impl<'de> Visitor<'de> for Names {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut names = Vec::new();
            while let Some((name, IgnoredAny)) = map.next_entry::<String, IgnoredAny>()? {
                if names.len() < self.0 {
                    names.push(name);
                }
            }
            Ok(names)
        }
    }
    Deserializer::from_slice(text).deserialize_map(Names(limit)).ok()
}

/// Every value that the pointer finds; `None` if an element of the list that it goes through has none.
pub(crate) fn find_in_each<'a>(text: &'a [u8], pointer: &Pointer) -> Result<Option<Vec<&'a RawValue>>, Unreadable> {
    let found = find(text, pointer)?;
    let elements = pointer.list().map(|list| find(text, &list)).transpose()?;
    Ok(elements.is_none_or(|elements| elements.len() == found.len()).then_some(found))
}

/// The only value, if it is a number.
pub(crate) fn number<'a>(text: &'a [u8], pointer: &Pointer) -> Result<Option<&'a str>, Unreadable> {
    let digit = |raw: &str| raw.starts_with(|first: char| first.is_ascii_digit() || first == '-');
    Ok(match find(text, pointer)?.as_slice() {
        [only] => Some(only.get()).filter(|raw| digit(raw)),
        _ => None,
    })
}

/// Whether a reader that does not look at case finds a member under this name although it is written so.
fn reads_as(written: &str, name: &str) -> bool {
    fn folded(text: &str) -> impl Iterator<Item = char> {
        text.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase)
    }
    written.eq_ignore_ascii_case(name) || (!written.is_ascii() && folded(written).eq(folded(name)))
}

struct Follow<'p, 'f, 'de> {
    path: &'p [String],
    found: &'f mut Vec<&'de RawValue>,
    ambiguous: &'f mut bool,
}

impl<'de> DeserializeSeed<'de> for Follow<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.path.is_empty() {
            let value = <&RawValue as serde::Deserialize>::deserialize(deserializer)?;
            if self.found.len() == MAX_FOUND {
                *self.ambiguous = true;
            } else {
                self.found.push(value);
            }
            return Ok(());
        }
        deserializer.deserialize_any(self)
    }
}

macro_rules! not_here {
    ($($name:ident: $kind:ty),*) => {
        $(fn $name<E>(self, _: $kind) -> Result<(), E> {
            Ok(())
        })*
    };
}

impl<'de> Visitor<'de> for Follow<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    not_here!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let (name, rest) = self.path.split_first().expect("the path has an element here");
        let (mut seen, mut other_letters) = (false, false);
        while let Some(key) = map.next_key::<String>()? {
            // Whoever reads an object where a list is due sees other members, too.
            if key != *name || name == "*" {
                other_letters |= reads_as(&key, name);
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            *self.ambiguous |= seen;
            seen = true;
            map.next_value_seed(Follow { path: rest, found: self.found, ambiguous: self.ambiguous })?;
        }
        *self.ambiguous |= seen && other_letters;
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let (name, rest) = self.path.split_first().expect("the path has an element here");
        let wanted: Option<usize> = name.parse().ok();
        let mut index = 0;
        loop {
            let more = if name == "*" || wanted == Some(index) {
                let follow = Follow { path: rest, found: self.found, ambiguous: self.ambiguous };
                list.next_element_seed(follow)?.is_some()
            } else {
                list.next_element::<IgnoredAny>()?.is_some()
            };
            if !more {
                return Ok(());
            }
            index += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(text: &str, pointer: &str) -> Result<Vec<String>, Unreadable> {
        let found = find(text.as_bytes(), &Pointer::parse(pointer).expect("a pointer"))?;
        Ok(found.into_iter().map(|value| value.get().to_owned()).collect())
    }

    #[test]
    fn a_pointer_is_followed_and_doubled_members_on_the_way_are_not_guessed_at() {
        assert_eq!(look(r#"{"a":{"b/c":[1,{"d":"x"}]}}"#, "/a/b~1c/1/d"), Ok(vec![r#""x""#.to_owned()]));
        assert_eq!(look(r#"[{"e":1},{"f":2},{"e":3}]"#, "/*/e"), Ok(vec!["1".to_owned(), "3".to_owned()]));
        assert_eq!(look(r#"{"a":1}"#, "/a/b"), Ok(vec![]));
        assert_eq!(look(r#"{"*":{"e":1},"f":{"e":2}}"#, "/*/e"), Ok(vec![]), "no list");
        assert_eq!(look(r#"{"a":1,"a":2}"#, "/a"), Err(Unreadable::Doubled));
        assert_eq!(look(r#"{"a":1,"\u0061":2}"#, "/a"), Err(Unreadable::Doubled));
        assert_eq!(look(r#"{"x":1,"x":2,"a":3}"#, "/a"), Ok(vec!["3".to_owned()]));
        for text in
            [r#"{"ask":1,"ASK":2}"#, r#"{"Ask":1,"ask":2}"#, r#"{"ask":1,"a\u017fk":2}"#, r#"{"ask":1,"as\u212a":2}"#]
        {
            assert_eq!(look(text, "/ask"), Err(Unreadable::Doubled), "{text}");
        }
        assert_eq!(look(r#"{"ASK":1,"b":{"Ask":2}}"#, "/ask"), Ok(vec![]), "nobody reads two of them");
        assert_eq!(look("{\"a\":1} x", "/a"), Err(Unreadable::Malformed));
        assert_eq!(look(&"[".repeat(100_000), "/a"), Err(Unreadable::Malformed));
        assert_eq!(look(&format!("{{\"a\":{}}}", "[".repeat(100_000)), "/a"), Err(Unreadable::Malformed));
    }
}
