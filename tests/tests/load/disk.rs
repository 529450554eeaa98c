//! A store that is full, from end to end. For a full disk it stands on a small file system of its own, which a big file
//! fills: that needs a user namespace in which it can be mounted, and says so where there is none.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use http::{Response, StatusCode};
use relay_tests::{
    fidelity::wire::Wire,
    handler::{Handler, full},
    process::{PATIENCE, Server},
    program::Program,
    sender::{request, send},
};
use tokio::{
    process::Command,
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

/// Room for the store, for what it keeps aside, and for what it wants to see before it accepts again.
const MOUNT: &str = "mount -t tmpfs -o size=64m tmpfs \"$0\"";

const ENDPOINT: &str = "[[endpoint]]\nname = \"open\"\nmode = \"durable\"\nverify = \"none\"\n";

async fn post(relay: &Server, body: Vec<u8>) -> Response<bytes::Bytes> {
    post_to(relay, "/open", body).await
}

async fn post_to(relay: &Server, path: &str, body: Vec<u8>) -> Response<bytes::Bytes> {
    send(&relay.public, request("POST", path, &[], body)).await.expect("answers")
}

/// Where the relay sees its small file system, from outside of its namespace.
fn inside(relay: &Server, folder: &Path) -> PathBuf {
    let id = relay.id().expect("it runs");
    Path::new(&format!("/proc/{id}/root")).join(folder.strip_prefix("/").expect("an absolute path"))
}

/// A relay whose store is alone on a small disk, if this machine lets it have one.
async fn on_small_disk(path: &str, endpoints: &str) -> Option<Server> {
    let words = ["unshare", "--user", "--mount", "--map-root-user", "sh", "-c"];
    let try_it = Command::new(words[0]).args(&words[1..]).args([MOUNT, path]).output().await;
    if !try_it.is_ok_and(|tried| tried.status.success()) {
        println!("skipped: no user namespace may mount a tmpfs here");
        return None;
    }
    let script = format!("{MOUNT} && exec \"$@\"");
    let program = Program::behind(Path::new(env!("CARGO_BIN_EXE_demo")), words.iter().copied().chain([&*script, path]));
    let config = format!("[store]\nurl = \"sqlite:{path}/relay.db\"\n{endpoints}");
    Some(Server::start(program, "127.0.0.1:0", &config, &[]).await.expect("a relay"))
}

#[tokio::test]
async fn a_long_body_that_fills_the_disk_is_refused_and_leaves_it_as_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let endpoint = format!("{ENDPOINT}max_body = \"1GiB\"\n");
    let Some(relay) = on_small_disk(folder.path().to_str().expect("text"), &endpoint).await else { return };
    assert_eq!(post(&relay, vec![b'x'; 2_000_000]).await.status(), StatusCode::OK, "there is room");
    let mut wire = Wire::connect(&relay.public).await.expect("connects");
    wire.write(format!("POST /open HTTP/1.1\r\nHost: relay.test\r\nContent-Length: {}\r\n\r\n", 100 << 20))
        .await
        .expect("sent");
    for _ in 0..100 {
        if wire.write(vec![b'x'; 1 << 20]).await.is_err() {
            break; // It has said no.
        }
    }
    let head = wire.answer("POST").await.expect("an answer, although it did not take all").head;
    assert_eq!((head.status().expect("a status"), head.one("relay-error")), (503, "store_full".into()));
    assert_eq!(head.one("retry-after"), "1");
    drop(wire);
    let end = Instant::now() + PATIENCE;
    while post(&relay, vec![b'y'; 2_000_000]).await.status() != StatusCode::OK {
        assert!(Instant::now() < end, "the body is gone, and there is no room");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_full_disk_refuses_webhooks_delivers_what_is_kept_and_accepts_again_when_there_is_room() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_str().expect("text");
    let Some(relay) = on_small_disk(path, ENDPOINT).await else { return };
    relay.expect_errors("the store's disk is full");
    for number in 0..60_u8 {
        assert_eq!(post(&relay, vec![number; 20_000]).await.status(), StatusCode::OK, "there is room");
    }

    let big = inside(&relay, folder.path()).join("big");
    // It takes all the room that there is, up to the last block.
    let filled = std::fs::write(&big, vec![b'x'; 64 * 1024 * 1024]);
    assert!(filled.is_err(), "the disk is smaller than that");
    let end = Instant::now() + PATIENCE;
    let mut more = 0;
    let refused = loop {
        let answer = post(&relay, vec![b'x'; 50_000]).await;
        if answer.status() != StatusCode::OK {
            break answer;
        }
        more += 1;
        assert!(Instant::now() < end, "it accepts on and on, on a full disk");
    };
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key("retry-after"), "{refused:?}");

    let (tell, mut calls) = mpsc::unbounded_channel();
    let handler = Handler::start(move |_| {
        tell.send(()).expect("a listener");
        async { Response::new(full("ok")) }
    });
    let handler = handler.await.expect("a handler");
    let _agent = relay.agent("open", &handler.port(), &[]).await.expect("attaches");
    for _ in 0..60 + more {
        timeout(PATIENCE, calls.recv()).await.expect("what is kept is delivered").expect("a handler");
    }
    // What was delivered gives way to what comes, inside of the store's log: all of its file at once, so that a sender
    // may have to come again while the settle of an event in it is still under way.
    for _ in 0..50 {
        let end = Instant::now() + PATIENCE;
        while post(&relay, vec![b'y'; 20_000]).await.status() != StatusCode::OK {
            assert!(Instant::now() < end, "others have ended");
            sleep(Duration::from_millis(20)).await;
        }
        timeout(PATIENCE, calls.recv()).await.expect("and delivers").expect("a handler");
    }

    std::fs::remove_file(&big).expect("removed");
    let removed = Instant::now();
    while post(&relay, b"again".to_vec()).await.status() != StatusCode::OK {
        assert!(removed.elapsed() < PATIENCE, "there is room, and it still refuses");
        sleep(Duration::from_millis(50)).await;
    }
    println!("it accepts again after {:?}", removed.elapsed());
    timeout(PATIENCE, calls.recv()).await.expect("and delivers").expect("a handler");
}

#[tokio::test]
async fn a_store_at_its_limit_takes_on_and_no_endpoint_takes_all_of_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_str().expect("text");
    let more = "[[endpoint]]\nname = \"loud\"\nmode = \"durable\"\nverify = \"none\"\n";
    let config = format!("[store]\nurl = \"sqlite:{path}/relay.db\"\nmax_size = \"4MiB\"\n{ENDPOINT}{more}");
    let program = Path::new(env!("CARGO_BIN_EXE_demo"));
    let mut relay = Server::start(program, "127.0.0.1:0", &config, &[]).await.expect("a relay");
    let (tell, mut calls) = mpsc::unbounded_channel();
    let handler = Handler::start(move |_| {
        tell.send(()).expect("a listener");
        async { Response::new(full("ok")) }
    });
    let handler = handler.await.expect("a handler");
    let _agent = relay.agent("open", &handler.port(), &[]).await.expect("attaches");
    // Short and long bodies, several times what there is room for, delivered as they come.
    for number in 0..200_usize {
        let body = vec![b'x'; if number % 10 == 0 { 200_000 } else { 20_000 }];
        assert_eq!(post(&relay, body).await.status(), StatusCode::OK, "{number}");
        timeout(PATIENCE, calls.recv()).await.expect("is delivered").expect("a handler");
    }
    // Nobody comes for what an endpoint keeps, and more and more is sent to it.
    let mut kept = 0;
    let refused = loop {
        let answer = post_to(&relay, "/loud", vec![b'y'; 50_000]).await;
        if answer.status() != StatusCode::OK {
            break answer;
        }
        kept += 1;
        assert!(kept < 100, "5 MB in a store of 4");
    };
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.headers()["relay-error"], "store_full");
    assert!(refused.headers().contains_key("retry-after") && kept >= 20, "{kept} are kept, and {refused:?}");
    for _ in 0..30 {
        assert_eq!(post_to(&relay, "/loud", vec![b'y'; 50_000]).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
    relay.log_line("an event could not be kept").await.expect("it says so");
    for number in 0..50 {
        assert_eq!(post(&relay, vec![b'z'; 20_000]).await.status(), StatusCode::OK, "{number} beside it");
        timeout(PATIENCE, calls.recv()).await.expect("is delivered").expect("a handler");
    }
    let lines = relay.log_so_far().matches("an event could not be kept").count();
    assert!(lines <= 3, "{lines} more lines about 30 refusals");
}
