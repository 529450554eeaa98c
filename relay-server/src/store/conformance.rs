//! What every store does: one suite, mounted once for each implementation.
//!
//! Each case is a function over `Arc<dyn Store>`; [`suite!`] makes a test of it that goes through [`FACTORIES`]. Times
//! are milliseconds after a fixed moment and ids rise with them, so that nothing here reads a clock.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use relay_program::query::Query;
use relay_proto::HeaderBlock;

use super::*;
use crate::hops::{Hops, Whose};

mod audit;
mod bodies;
mod claims;
mod dedup;
mod lists;
mod marks;
mod order;
mod random;
mod room;
mod rows;
mod unsteady;
mod upkeep;

pub(crate) use unsteady::UnsteadyStore;

/// Large enough for every case but those about the limit.
const ROOM: u64 = 256 * 1024 * 1024;

/// A store with little room.
const NARROW: u64 = 4 * 1024 * 1024;

/// A store, and the folder it lives in.
struct Bed {
    store: Arc<dyn Store>,
    folder: Option<tempfile::TempDir>,
}

impl Bed {
    /// What is counted of each endpoint is what its rows say, in a store that is a file and has all rows in its tables.
    fn assert_counted(&self) {
        let Some(folder) = &self.folder else { return };
        let file = rusqlite::Connection::open(folder.path().join("relay.db")).expect("a connection");
        let wrong = "SELECT count(*) FROM endpoint WHERE open_bytes <> (SELECT coalesce(sum(cost), 0) FROM event \
                     WHERE event.endpoint = key AND due_at IS NOT NULL) OR ended_bytes <> (SELECT coalesce(sum(cost), 0) \
                     FROM event WHERE event.endpoint = key AND due_at IS NULL)";
        let wrong: i64 = file.query_row(wrong, [], |row| row.get(0)).expect("read");
        assert_eq!(wrong, 0, "endpoints whose bytes were counted wrong");
    }
}

fn memory(max_bytes: u64) -> Bed {
    Bed { store: Arc::new(MemoryStore::new(max_bytes)), folder: None }
}

fn sqlite(max_bytes: u64) -> Bed {
    open(tempfile::tempdir().expect("a folder"), max_bytes, sqlite::Pace::default())
}

/// Its index is committed when somebody looks.
fn held_back(max_bytes: u64) -> Bed {
    let pace = sqlite::Pace { events: usize::MAX, behind: Duration::MAX };
    open(tempfile::tempdir().expect("a folder"), max_bytes, pace)
}

/// Its index is committed after each batch.
fn up_to_date(max_bytes: u64) -> Bed {
    let pace = sqlite::Pace { events: 0, behind: Duration::ZERO };
    open(tempfile::tempdir().expect("a folder"), max_bytes, pace)
}

fn open(folder: tempfile::TempDir, max_bytes: u64, pace: sqlite::Pace) -> Bed {
    let options = SqliteOptions { path: folder.path().join("relay.db"), max_bytes };
    Bed { store: Arc::new(SqliteStore::open_at(options, pace).expect("a store")), folder: Some(folder) }
}

/// What a process that is killed leaves of its store, opened by the next one.
fn killed(bed: &Bed) -> Option<Bed> {
    let (from, to) = (bed.folder.as_ref()?.path(), tempfile::tempdir().expect("a folder"));
    copy_files(from, to.path());
    Some(open(to, bed.store.usage().max_bytes, sqlite::Pace { events: usize::MAX, behind: Duration::MAX }))
}

fn copy_files(from: &Path, to: &Path) {
    for file in std::fs::read_dir(from).expect("a folder") {
        let file = file.expect("a file");
        let copy = to.join(file.file_name());
        if file.file_type().expect("a kind").is_dir() {
            std::fs::create_dir(&copy).expect("made");
            copy_files(&file.path(), &copy);
        } else {
            std::fs::copy(file.path(), copy).expect("copied");
        }
    }
}

/// Makes a store with so much room.
type Factory = fn(u64) -> Bed;

/// The stores that the suite is for.
const FACTORIES: [(&str, Factory); 4] = [
    ("memory", memory),
    ("sqlite", sqlite),
    ("sqlite, its index held back", held_back),
    ("sqlite, its index committed at once", up_to_date),
];

/// One store of each kind, with so much room. What a test prints of them shows where it fails.
fn beds(max_bytes: u64) -> impl Iterator<Item = Bed> {
    FACTORIES.iter().map(move |(kind, factory)| {
        println!("in {kind}:");
        factory(max_bytes)
    })
}

macro_rules! suite {
    ($($module:ident: $($name:ident)*;)*) => {
        $($(
            #[tokio::test]
            async fn $name() {
                for bed in beds(ROOM) {
                    $module::$name(Arc::clone(&bed.store)).await;
                }
            }
        )*)*
    };
}

suite! {
    claims:
        what_was_appended_is_claimed_once
        an_attempt_is_counted_before_it_is_made
        a_stale_settle_is_only_recorded
        an_expired_lease_is_due_again
        leases_of_holders_that_are_gone_are_taken_over
        an_append_that_is_made_again_says_the_same
        a_settle_that_is_made_again_says_the_same
        a_retry_waits_for_its_time
        a_release_uses_no_attempt
        an_event_leased_at_once_is_held_by_its_caller
        oldest_and_newest_are_wanted_apart
        a_claim_is_bounded
        a_paused_endpoint_gives_nothing_until_it_is_resumed
        nothing_is_due_before_it_was_appended
        unknown_events_and_endpoints_are_told_apart
        a_batch_with_an_id_twice_keeps_nothing;
    dedup:
        verdicts_follow_the_state_of_the_earlier_event
        a_delivered_one_is_answered_as_recorded
        another_body_is_a_conflict
        outside_the_window_it_is_new
        a_sender_that_never_repeats_asks_for_a_redelivery
        two_of_one_key_in_one_batch_are_one_event
        a_key_counts_at_its_own_endpoint
        again_takes_its_lease_at_once;
    marks:
        what_was_signed_is_taken_once
        a_mark_outlives_its_event_and_ends_with_its_time
        a_late_one_is_taken_where_nothing_can_be_unknown
        a_dead_one_that_comes_again_gets_another_attempt
        every_signature_of_an_event_is_known;
    order:
        only_the_oldest_open_one_is_claimable
        a_retry_keeps_the_place
        a_dead_or_cancelled_head_lets_the_next_go
        a_parked_one_that_ends_lets_nobody_go
        a_revived_one_stands_behind_the_open_ones
        a_dead_one_that_is_dropped_leaves_the_next_alone
        the_order_is_that_of_the_appends
        an_event_behind_another_gets_no_lease;
    lists:
        pages_follow_each_other_both_ways
        filters_let_through_what_they_say
        text_is_found_in_head_and_body
        queries_are_answered_from_rows_and_contents
        a_sender_id_is_found
        a_page_is_bounded
        one_event_is_shown_with_its_head_and_attempts
        the_backlog_says_what_waits;
    bodies:
        heads_come_back_byte_for_byte
        long_bodies_are_read_in_ranges
        a_body_comes_from_a_file
        a_body_that_cannot_be_read_is_refused
        long_answers_lose_their_body
        the_first_and_the_last_attempts_stay_on_record;
    upkeep:
        dead_events_are_revived_dropped_and_replayed
        the_relays_own_events_stand_in_no_list_and_are_forgotten
        an_open_one_is_cancelled_and_its_end_only_recorded
        a_replay_shares_a_long_body
        a_bulk_action_is_done_in_steps
        only_what_waits_is_skipped
        nothing_is_claimed_while_it_is_being_skipped
        a_bulk_replay_leaves_its_own_alone
        bulk_actions_are_bounded
        old_events_are_purged_and_late_ones_become_dead
        a_held_event_does_not_expire
        space_is_made_of_ended_events_only
        a_purge_goes_in_small_steps;
    audit:
        a_row_gets_its_result_once
        pages_of_the_audit_log_follow_each_other
        a_crowd_outside_pushes_out_its_own_rows
        a_name_that_comes_again_is_another_row
        what_tokens_had_is_kept_for_their_last_day
        sizes_say_what_events_take
        a_token_has_so_many_open_bulk_actions;
    rows:
        config_rows_belong_to_their_source
        config_rows_of_all_kinds_are_put_in_or_none
        the_use_of_a_row_is_noted
        sealed_secrets_are_kept
        signatures_of_the_relay_are_kept_until_they_expire
        refused_requests_are_bounded
        a_flood_of_refused_requests_takes_a_bounded_part_of_the_store
        the_standing_counts_each_state;
}

macro_rules! narrow {
    ($($name:ident)*) => {
        mod narrow {
            $(
                #[tokio::test]
                async fn $name() {
                    for bed in super::beds(super::NARROW) {
                        super::room::$name(std::sync::Arc::clone(&bed.store)).await;
                        bed.store.backlog(super::Sight::All).await.expect("all rows are in the table then");
                        bed.assert_counted();
                    }
                }
            )*
        }
    };
}

narrow! {
    what_has_ended_gives_way_oldest_first
    long_bodies_find_room_where_others_ended
    a_store_that_is_full_of_what_waits_refuses_and_loses_nothing
    a_repeat_needs_no_room
    an_endpoint_keeps_to_its_share
    endpoints_of_a_pool_keep_to_it_together
    ended_events_of_others_stay_where_a_share_is_used_up
    long_bodies_keep_to_the_share
    unproven_senders_leave_the_reserve_alone
    records_of_attempts_count
    replays_keep_to_the_share
    refused_requests_displace_nothing_that_waits
}

#[tokio::test]
async fn a_full_store_refuses_events_and_still_settles() {
    for bed in [memory(64 * 1024), sqlite(512 * 1024)] {
        let store = &bed.store;
        let mut refused = None;
        for n in 0..600 {
            let mut event = event("full", n);
            event.body = Body::Bytes(vec![7; 4096].into());
            if let Err(error) = store.append(vec![event], at(n)).await {
                refused = Some(error);
                break;
            }
        }
        let error = refused.expect("a limit");
        assert_eq!(error, StoreError::AtCapacity);
        assert!(error.is_temporary() && error.to_string().contains("max_size"), "{error}");
        assert_eq!(*store.health().borrow(), Health::Ready);
        let held = claim(store, "full", 1, 10_000, 1000).await;
        assert_eq!(done(store, &held[0], 1001).await, Ended::Settled(State::Delivered));
        assert!(store.usage().bytes > 32 * 1024);
    }
}

/// So many milliseconds after the moment at which every case begins.
fn at(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(1_760_000_000_000 + ms).expect("in range")
}

/// An id of that time.
fn id(ms: i64) -> EventId {
    let mut bytes = [0x70; 16];
    bytes[..6].copy_from_slice(&at(ms).as_millisecond().to_be_bytes()[2..]);
    bytes[8..].copy_from_slice(&ms.to_be_bytes());
    EventId::from_bytes(bytes)
}

fn name(text: &str) -> EndpointName {
    EndpointName::parse(text).expect("a name")
}

fn event(endpoint: &str, ms: i64) -> NewEvent {
    NewEvent {
        endpoint: name(endpoint),
        id: id(ms),
        received_at: at(ms),
        head: head(ms),
        body: Body::Bytes(format!("{{\"n\":{ms}}}").into()),
        event_type: Some("push".into()),
        sender_id: Some(format!("sender-{ms}")),
        dedup: None,
        mark: None,
        order_key: None,
        replay_of: None,
        lease: None,
    }
}

fn head(ms: i64) -> Head {
    let lines = [("content-type", &b"application/json"[..]), ("x-raw", &[0xe9, 0xff])];
    let mut head = Head::sample(&format!("/hook?n={ms}"));
    head.sent.headers = lines.into_iter().collect();
    head.arrival.id = id(ms);
    head.arrival.received_at = at(ms);
    head.arrival.verified = "github".into();
    head.arrival.signer = Some("0123456789abcdef".into());
    head.arrival.certificate = Some("sha256:ab, dns:client.test".into());
    head.arrival.forwarded.addresses = Bytes::from_static(b"192.0.2.1, \xff");
    head
}

fn keyed(endpoint: &str, ms: i64, key: &str, sender_retries: bool) -> NewEvent {
    let dedup = Dedup { key: key.into(), window: Duration::from_secs(60), sender_retries };
    NewEvent { dedup: Some(dedup), body: Body::Bytes("the same".into()), ..event(endpoint, ms) }
}

async fn append(store: &Arc<dyn Store>, event: NewEvent) -> Verdict {
    let now = event.received_at;
    let mut verdicts = store.append(vec![event], now).await.expect("appended");
    assert_eq!(verdicts.len(), 1);
    verdicts.remove(0)
}

/// A lease of the relay that most cases are about.
fn grant(until: i64) -> Grant {
    Grant { holder: Holder(1), until: at(until) }
}

async fn claim(store: &Arc<dyn Store>, endpoint: &str, oldest: usize, until: i64, now: i64) -> Vec<ClaimedEvent> {
    let wants = vec![Want { endpoint: name(endpoint), oldest, newest: 0 }];
    store.claim(wants, grant(until), at(now)).await.expect("claimed").deliveries
}

fn end(delivery: &ClaimedEvent, status: Option<u16>, then: Then, now: i64) -> End {
    let answer = status.map(|status| Answer {
        status,
        headers: [("x-answer", b"\xffyes")].into_iter().collect(),
        body: "answered".into(),
        truncated: false,
    });
    let mut hops = Hops::default();
    hops.note_answer(Whose::Ack, Some(200), Duration::from_micros(700));
    End {
        endpoint: delivery.summary.endpoint.clone(),
        id: delivery.summary.id,
        attempt: Attempt {
            number: delivery.lease.attempt,
            fence: delivery.lease.fence,
            started_at: at(now),
            duration: Duration::from_millis(5),
            outcome: if status.is_some() { Outcome::Answered } else { Outcome::Unreachable },
            agent: Some("agent-1".into()),
            answer,
            resigned: true,
            sha256_in: status.map(|_| delivery.summary.body_sha256),
            hops,
        },
        then,
    }
}

async fn settle(store: &Arc<dyn Store>, end: End, now: i64) -> Ended {
    store.settle(vec![end], at(now)).await.expect("settled")[0]
}

async fn done(store: &Arc<dyn Store>, delivery: &ClaimedEvent, now: i64) -> Ended {
    settle(store, end(delivery, Some(200), Then::Done, now), now).await
}

async fn dead(store: &Arc<dyn Store>, delivery: &ClaimedEvent, now: i64) -> Ended {
    settle(store, end(delivery, Some(500), Then::Dead(Reason::HandlerFailed), now), now).await
}

async fn act(store: &Arc<dyn Store>, endpoint: &str, id: EventId, action: Action, now: i64) -> Acted {
    store.act(vec![Act { endpoint: name(endpoint), id, action }], at(now)).await.expect("acted")[0]
}

async fn record(store: &Arc<dyn Store>, id: EventId) -> Record {
    store.event(Sight::All, id, at(0)).await.expect("read").expect("there")
}

fn ids(deliveries: &[ClaimedEvent]) -> Vec<EventId> {
    deliveries.iter().map(|one| one.summary.id).collect()
}
