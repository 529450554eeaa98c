//! The smaller rows.

use super::*;

fn rows(rows: &[(&str, &str)]) -> Vec<(String, String)> {
    rows.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

pub(super) async fn config_rows_belong_to_their_source(store: Arc<dyn Store>) {
    let configure = |source, some: &[(&str, &str)], all| {
        let reply = store.configure(source, vec![(ConfigKind::Endpoint, rows(some))], all, at(5));
        async move { reply.await.map(|mut changes| changes.remove(0)) }
    };
    let change = configure(Source::File, &[("a", "1"), ("b", "1")], true).await.expect("configured");
    assert_eq!(change.added, ["a", "b"]);
    configure(Source::Api, &[("c", "1")], false).await.expect("configured");
    let clash = configure(Source::Api, &[("d", "1"), ("a", "2")], false).await;
    assert_eq!(clash, Err(StoreError::Clash("a".into())));
    let change = configure(Source::File, &[("b", "2"), ("e", "1")], true).await.expect("configured");
    assert_eq!((change.added, change.changed, change.removed), (vec!["e".into()], vec!["b".into()], vec!["a".into()]));
    let unchanged = configure(Source::File, &[("b", "2"), ("e", "1")], true).await.expect("configured");
    assert_eq!(unchanged, ConfigChange::default());
    let there = store.config(ConfigKind::Endpoint).await.expect("read");
    let shown: Vec<_> = there.iter().map(|row| (row.name.as_str(), row.source, row.value.as_str())).collect();
    assert_eq!(shown, [("b", Source::File, "2"), ("c", Source::Api, "1"), ("e", Source::File, "1")]);
    assert!(there[0].revision > there[1].revision, "a change is newer than what was there");
    assert!(store.config(ConfigKind::Token).await.expect("read").is_empty());
    assert!(store.unconfigure(ConfigKind::Endpoint, "c".into()).await.expect("removed"));
    assert!(!store.unconfigure(ConfigKind::Endpoint, "c".into()).await.expect("removed"));
    let empty = configure(Source::Api, &[], true).await.expect("configured");
    assert_eq!(empty, ConfigChange::default(), "another source's rows stay");
}

pub(super) async fn config_rows_of_all_kinds_are_put_in_or_none(store: Arc<dyn Store>) {
    let token = vec![(ConfigKind::Token, rows(&[("t", "1")]))];
    store.configure(Source::Api, token, false, at(1)).await.expect("configured");
    let both =
        |token: &str| vec![(ConfigKind::Endpoint, rows(&[("a", "1")])), (ConfigKind::Token, rows(&[(token, "1")]))];
    let clash = store.configure(Source::File, both("t"), true, at(2)).await;
    assert_eq!(clash, Err(StoreError::Clash("t".into())));
    assert!(store.config(ConfigKind::Endpoint).await.expect("read").is_empty(), "nothing of it");
    let changes = store.configure(Source::File, both("u"), true, at(3)).await.expect("configured");
    assert_eq!(changes.iter().map(|change| change.added.concat()).collect::<Vec<_>>(), ["a", "u"]);
    let none = vec![(ConfigKind::Endpoint, rows(&[])), (ConfigKind::Token, rows(&[]))];
    let changes = store.configure(Source::File, none, true, at(4)).await.expect("configured");
    assert_eq!(changes.iter().map(|change| change.removed.concat()).collect::<Vec<_>>(), ["a", "u"]);
    assert_eq!(store.config(ConfigKind::Token).await.expect("read").len(), 1, "the other source's");
}

pub(super) async fn the_use_of_a_row_is_noted(store: Arc<dyn Store>) {
    let token = rows(&[("t", "hash")]);
    store.configure(Source::Api, vec![(ConfigKind::Token, token)], false, at(1)).await.expect("configured");
    let used = || async { store.config(ConfigKind::Token).await.expect("read")[0].used_at };
    assert_eq!(used().await, None);
    for (ms, seen) in [(50, 50), (20, 50), (70, 70)] {
        store.used(ConfigKind::Token, vec!["t".into(), "gone".into()], at(ms)).await.expect("noted");
        assert_eq!(used().await, Some(at(seen)));
    }
    let changed = rows(&[("t", "other")]);
    store.configure(Source::Api, vec![(ConfigKind::Token, changed)], false, at(80)).await.expect("configured");
    assert_eq!(used().await, Some(at(70)));
}

pub(super) async fn sealed_secrets_are_kept(store: Arc<dyn Store>) {
    let key = seal::SealKey::new(&[7; 32]).expect("a key");
    let put = |scope: &str, secret: &[u8]| {
        let sealed = key.seal(scope, "verify", secret).expect("sealed");
        store.put_secret(scope.into(), "verify".into(), Some(sealed), Was::Anything, at(1))
    };
    put("a", b"first").await.expect("kept");
    put("b", b"other").await.expect("kept");
    put("a", b"second").await.expect("kept");
    let found = store.secret("a".into(), "verify".into()).await.expect("read").expect("there");
    assert_eq!(**key.unseal("a", "verify", &found).expect("opened"), *b"second");
    assert!(memchr::memmem::find(&found, b"second").is_none());
    assert!(key.unseal("b", "verify", &found).is_err(), "sealed for its place");
    store.put_secret("a".into(), "verify".into(), None, Was::Anything, at(2)).await.expect("removed");
    assert_eq!(store.secret("a".into(), "verify".into()).await.expect("read"), None);
    assert!(store.secret("b".into(), "verify".into()).await.expect("read").is_some());
    let first = async |sealed: &'static str, name: &str| {
        store.put_secret("b".into(), name.into(), Some(sealed.into()), Was::Nothing, at(3)).await.expect("asked")
    };
    assert_eq!([first("1", "new").await, first("2", "new").await, first("3", "verify").await], [true, false, false]);
    assert_eq!(store.secret("b".into(), "new".into()).await.expect("read"), Some("1".into()), "who comes first");
}

pub(super) async fn signatures_of_the_relay_are_kept_until_they_expire(store: Arc<dyn Store>) {
    let one = |digest: u8, expires_at| OwnSignature { digest: [digest; 32], expires_at: at(expires_at) };
    for (signature, now) in [(one(1, 5000), 0), (one(2, 9000), 0), (one(1, 3000), 1000)] {
        store.remember(signature, at(now)).await.expect("kept");
    }
    let kept = async |now| {
        let mut kept = store.own_signatures(at(now)).await.expect("read");
        kept.sort_by_key(|signature| signature.digest);
        kept
    };
    assert_eq!(kept(4000).await, [one(1, 5000), one(2, 9000)], "one that is made again is kept for the longer time");
    assert_eq!(kept(5000).await, [one(2, 9000)]);
    store.remember(one(3, 20_000), at(9000)).await.expect("kept");
    assert_eq!(kept(0).await, [one(3, 20_000)], "what has expired is forgotten");
}

pub(super) async fn refused_requests_are_bounded(store: Arc<dyn Store>) {
    let row = |endpoint: &str, ms, body: usize| RefusedRow {
        endpoint: name(endpoint),
        id: id(ms),
        at: at(ms),
        status: 401,
        code: "signature_mismatch".into(),
        head: format!("POST /{ms}"),
        body: vec![9; body].into(),
    };
    store.refuse(vec![row("a", 1, MAX_REFUSED_BYTES + 1)]).await.expect("kept");
    assert_eq!(store.refused(None, 10).await.expect("read"), [row("a", 1, 0)], "a list has no bodies");
    let first = store.refused_request(id(1)).await.expect("read");
    assert_eq!(first, Some(row("a", 1, MAX_REFUSED_BYTES)), "the beginning of its body");
    assert_eq!(store.refused_request(id(2)).await.expect("read"), None);
    assert!(store.backlog(Sight::All).await.expect("read").is_empty(), "nothing waits where only refusals were");
    let count = i64::try_from(MAX_REFUSED).expect("small");
    store.refuse((2..=count + 5).map(|ms| row("a", ms, 3)).collect()).await.expect("kept");
    store.refuse(vec![row("b", 9000, 3)]).await.expect("kept");
    let all = store.refused(Some(name("a")), usize::MAX).await.expect("read");
    assert_eq!(all.len(), MAX_REFUSED);
    assert_eq!((all[0].id, all.last().expect("a row").id), (id(count + 5), id(6)), "the newest first");
    assert_eq!(store.refused(None, 1).await.expect("read")[0].id, id(9000));
    assert!(store.event(Sight::All, id(9000), at(0)).await.expect("read").is_none(), "never an event");
    let day = 24 * 60 * 60 * 1000;
    let policy =
        Purge { retention: Duration::MAX, pending_retention: Duration::MAX, max_bytes: u64::MAX, cursor: None };
    for _ in 0..20 {
        store.purge(policy.clone(), at(day + 5000)).await.expect("purged");
    }
    let left = store.refused(None, usize::MAX).await.expect("read");
    assert_eq!(left.iter().map(|row| row.id).collect::<Vec<_>>(), [id(9000)], "a day is enough");
}

pub(super) async fn a_flood_of_refused_requests_takes_a_bounded_part_of_the_store(store: Arc<dyn Store>) {
    let row = |endpoint: &str, ms| RefusedRow {
        endpoint: name(endpoint),
        id: id(ms),
        at: at(ms),
        status: 401,
        code: "signature_mismatch".into(),
        head: "{}".into(),
        body: vec![9; MAX_REFUSED_BYTES].into(),
    };
    store.refuse(vec![row("quiet", 1)]).await.expect("kept");
    let most = refused_bytes(store.usage().max_bytes) / (MAX_REFUSED_BYTES as u64 + 2);
    let flood = i64::try_from(most).expect("small") + 50;
    for ms in 2..flood {
        store.refuse(vec![row(if ms % 2 == 0 { "loud" } else { "louder" }, ms)]).await.expect("kept");
    }
    let left = store.refused(None, usize::MAX).await.expect("read");
    assert!(left.len() as u64 <= most && left.len() as u64 + 2 >= most, "{} of {most}", left.len());
    assert_eq!((left[0].id, left.last().expect("a row").id), (id(flood - 1), id(1)), "the quiet one's is still there");
}

pub(super) async fn the_standing_counts_each_state(store: Arc<dyn Store>) {
    assert_eq!(store.counts(name("a")).await.expect("read"), EventCounts::default());
    for ms in 1..=4 {
        append(&store, event("a", ms)).await;
    }
    let held = claim(&store, "a", 3, 500, 5).await;
    done(&store, &held[0], 6).await;
    dead(&store, &held[1], 7).await;
    store.pause(name("a"), true, at(8)).await.expect("paused");
    let expected = EventCounts { pending: 1, running: 1, dead: 1, paused_at: Some(at(8)) };
    assert_eq!(store.counts(name("a")).await.expect("read"), expected);
}
