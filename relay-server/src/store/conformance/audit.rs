//! The audit log, and what is counted for tokens.

use super::*;

fn row(id: u64, class: AuditClass, result: Option<&str>) -> AuditRow {
    AuditRow {
        id,
        class,
        kind: "token".into(),
        name: format!("alice-{}", id % 2),
        token: Some("tok_1".into()),
        address: Some("192.0.2.1".into()),
        action: if id.is_multiple_of(3) { "endpoint.create" } else { "token.rotate" }.into(),
        object: Some(format!("hub-{id}")),
        result: result.map(str::to_owned),
        detail: None,
        count: 1,
    }
}

async fn ids(store: &Arc<dyn Store>, filter: AuditFilter) -> Vec<u64> {
    let page = store.audited(AuditFilter { limit: 100, ..filter }).await.expect("read");
    page.rows.iter().map(|row| row.id).collect()
}

fn oldest() -> AuditFilter {
    AuditFilter { oldest_first: true, ..AuditFilter::default() }
}

pub(super) async fn a_row_gets_its_result_once(store: Arc<dyn Store>) {
    let begun = row(7, AuditClass::Actions, None);
    store.audit(vec![begun.clone()], u64::MAX).await.expect("kept");
    let kept = async || store.audited(AuditFilter { limit: 1, ..oldest() }).await.expect("read").rows.remove(0);
    assert_eq!(kept().await, begun);
    let ended = AuditRow { detail: Some("two waited".into()), ..row(7, AuditClass::Actions, Some("ok")) };
    store.audit(vec![ended.clone()], u64::MAX).await.expect("kept");
    assert_eq!(kept().await, ended);
    store.audit(vec![row(7, AuditClass::Actions, Some("another"))], u64::MAX).await.expect("heard");
    store.audit(vec![begun], u64::MAX).await.expect("heard");
    assert_eq!(kept().await, ended, "what is settled is never changed");
}

pub(super) async fn pages_of_the_audit_log_follow_each_other(store: Arc<dyn Store>) {
    let begin = audit_id(at(0));
    let rows = (0..25).map(|n| row(begin + n * 1000, AuditClass::Actions, Some("ok"))).collect();
    store.audit(rows, u64::MAX).await.expect("kept");
    for oldest_first in [false, true] {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let filter = AuditFilter { after, oldest_first, limit: 10, ..AuditFilter::default() };
            let page = store.audited(filter).await.expect("read");
            assert!(page.rows.len() <= 10);
            seen.extend(page.rows.iter().map(|row| (row.id - begin) / 1000));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        if !oldest_first {
            seen.reverse();
        }
        assert_eq!(seen, (0..25).collect::<Vec<_>>());
    }
    let filter = AuditFilter { since: Some(at(5)), until: Some(at(8)), ..oldest() };
    assert_eq!(ids(&store, filter).await, [5, 6, 7].map(|n| begin + n * 1000), "from one time to before another");
    let object = AuditFilter { object: Some(format!("hub-{}", begin + 3000)), ..oldest() };
    assert_eq!(ids(&store, object).await, [begin + 3000]);
    let both = AuditFilter { name: Some("alice-1".into()), action: Some("endpoint.create".into()), ..oldest() };
    for id in ids(&store, both).await {
        assert!(id % 2 == 1 && id % 3 == 0);
    }
    assert_eq!(store.forget_audited(at(20)).await.expect("removed"), 20);
    assert_eq!(ids(&store, oldest()).await.len(), 5, "what is younger stays");
}

pub(super) async fn a_crowd_outside_pushes_out_its_own_rows(store: Arc<dyn Store>) {
    const MOST: u64 = 64 * 1024;
    let own: Vec<_> = (1..=20).map(|id| row(id, AuditClass::Actions, Some("ok"))).collect();
    store.audit(own, MOST).await.expect("kept");
    for batch in 0..40 {
        let rows = (0..100).map(|n| row(1000 + batch * 100 + n, AuditClass::Refused, Some("unauthorized"))).collect();
        store.audit(rows, MOST).await.expect("kept");
    }
    // One that does something again and again has no more than that room either.
    let again = (0..600).map(|n| AuditRow { name: "mallory".into(), ..row(9000 + n, AuditClass::Actions, Some("ok")) });
    store.audit(again.collect(), MOST).await.expect("kept");
    let mut kept = Vec::new();
    let mut after = None;
    loop {
        let page = store.audited(AuditFilter { after, limit: 1000, ..oldest() }).await.expect("read");
        kept.extend(page.rows);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let people = |row: &&AuditRow| row.class == AuditClass::Actions && row.name.starts_with("alice");
    assert_eq!(kept.iter().filter(people).count(), 20, "those of others are there");
    assert!(kept.iter().map(AuditRow::bytes).sum::<u64>() <= MOST);
    assert_eq!(kept.last().map(|row| row.id), Some(9000 + 599), "the newest is there");
}

pub(super) async fn a_name_that_comes_again_is_another_row(store: Arc<dyn Store>) {
    let configure = |value: &str, ms| {
        let rows = vec![("t".to_owned(), value.to_owned())];
        store.configure(Source::File, vec![(ConfigKind::Token, rows)], true, at(ms))
    };
    let made = async || store.config(ConfigKind::Token).await.expect("read").first().map(|row| row.made_at);
    configure("1", 10).await.expect("configured");
    configure("2", 20).await.expect("configured");
    assert_eq!(made().await, Some(at(10)), "a change leaves it the same row");
    store.unconfigure(ConfigKind::Token, "t".into()).await.expect("removed");
    configure("2", 30).await.expect("configured");
    assert_eq!(made().await, Some(at(30)));
}

pub(super) async fn what_tokens_had_is_kept_for_their_last_day(store: Arc<dyn Store>) {
    let one = |token: &str, day, events| TokenUse { token: token.into(), day, events };
    store.note_token_use(vec![one("a", 10, 5), one("b", 10, 7)]).await.expect("noted");
    store.note_token_use(vec![one("a", 10, 6)]).await.expect("noted");
    let kept = async || {
        let mut kept = store.token_use().await.expect("read");
        kept.sort_by(|one, other| one.token.cmp(&other.token));
        kept
    };
    assert_eq!(kept().await, [one("a", 10, 6), one("b", 10, 7)]);
    store.note_token_use(vec![one("b", 11, 1)]).await.expect("noted");
    assert_eq!(kept().await, [one("b", 11, 1)]);
}

pub(super) async fn sizes_say_what_events_take(store: Arc<dyn Store>) {
    assert!(store.sizes(Sight::All).await.expect("read").is_empty());
    append(&store, event("a", 1)).await;
    append(&store, event("a", 2)).await;
    append(&store, event("b", 3)).await;
    let held = claim(&store, "a", 1, 500, 5).await;
    done(&store, &held[0], 6).await;
    let sizes = store.sizes(Sight::Only(vec![name("a")])).await.expect("read");
    let [one] = &sizes[..] else { panic!("{sizes:?}") };
    assert!(one.endpoint == name("a") && one.waiting > 0 && one.ended > 0, "{one:?}");
    assert_eq!(store.sizes(Sight::All).await.expect("read").len(), 2);
}

pub(super) async fn a_token_has_so_many_open_bulk_actions(store: Arc<dyn Store>) {
    let plan = |ms, by: &str| BulkPlan {
        by: Some(by.to_owned()),
        ..BulkPlan::new(id(ms), BulkAction::Cancel, Filter::default())
    };
    let most = i64::try_from(MAX_BULKS_OF_ONE).expect("small");
    for ms in 1..=most {
        store.bulk(plan(ms, "tok_1"), at(ms)).await.expect("noted");
    }
    assert_eq!(store.bulk(plan(50, "tok_1"), at(50)).await, Err(StoreError::TooManyBulks(MAX_BULKS_OF_ONE)));
    store.bulk(plan(51, "tok_2"), at(51)).await.expect("another token");
    store.bulk(BulkPlan { by: None, ..plan(52, "") }, at(52)).await.expect("the admin");
    store.stop_bulk(id(1)).await.expect("stopped");
    store.bulk(plan(53, "tok_1"), at(53)).await.expect("there is room again");
}
