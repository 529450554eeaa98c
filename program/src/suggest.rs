//! Words that were probably meant: the nearest of those that are known.

/// The one of `known` that is near enough to what was typed.
pub fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let nearest = known.into_iter().map(|name| (strsim::damerau_levenshtein(typed, name), name)).min()?;
    let (distance, name) = nearest;
    (distance <= 1 + typed.len() / 4).then_some(name)
}

/// `did you mean "github"?` when one of `known` is near enough to `typed`, else nothing.
pub fn suggest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(typed, known).map(|name| format!("did you mean \"{name}\"?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestions_are_given_only_for_near_misses() {
        let known = ["listen", "admin", "public_url"];
        assert_eq!(suggest("lisen", known).as_deref(), Some("did you mean \"listen\"?"));
        assert_eq!(suggest("pubic_url", known).as_deref(), Some("did you mean \"public_url\"?"));
        assert_eq!(suggest("colour", known), None);
        assert_eq!(suggest("x", []), None);
    }
}
