use super::*;

async fn open() -> (Conn, DuplexStream) {
    let pipes = Pipes::default();
    let conn = Pool::new(pipes.clone()).checkout(&nowhere()).await.unwrap();
    (conn, pipes.end())
}

/// One GET, these bytes for an answer, then the endpoint closes.
async fn answered(bytes: &str) -> (Vec<String>, Conn) {
    let (mut conn, mut end) = open().await;
    conn.begin(get());
    end.write_all(bytes.as_bytes()).await.unwrap();
    let far = tokio::io::split(end);
    let (_read, mut write) = far;
    write.shutdown().await.unwrap();
    (story(&mut conn).await, conn)
}

#[tokio::test(start_paused = true)]
async fn answers_of_all_kinds() {
    for (bytes, want) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", vec!["head 200", "data ok", "end"]),
        ("HTTP/1.1 204 No\r\n\r\n", vec!["head 204", "end"]),
        ("HTTP/1.1 103 E\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", vec!["interim 103", "head 200", "end"]),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-T: 1\r\n\r\n", vec!["head 200", "data hi", "end 1"]),
        ("HTTP/1.0 200 OK\r\n\r\nold", vec!["head 200", "data old", "end"]),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", vec!["head 200", "data half", "answer broke off"]),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n", vec!["head 200", "data hi", "answer broke off"]),
        ("HTTP/1.1 200 OK\r\nContent-Le", vec!["heard", "answer broke off"]),
        ("", vec!["connection closed without an answer"]),
        ("SSH-2.0-x\r\n", vec!["malformed answer: malformed status line"]),
        ("HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", vec!["malformed answer: 101 without having been asked"]),
    ] {
        let (told, conn) = answered(bytes).await;
        assert_eq!(told, want, "{bytes:?}");
        assert_eq!(conn.sent(), Sent::Complete);
        assert_eq!(conn.heard(), !bytes.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn only_sound_connections_are_used_again() {
    for (bytes, again) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n", false),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", false),
        ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", false),
        ("HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\nhello", false),
    ] {
        let (mut conn, mut end) = open().await;
        conn.begin(get());
        end.write_all(bytes.as_bytes()).await.unwrap();
        story(&mut conn).await;
        assert_eq!(conn.is_reusable(), again, "{bytes:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn bodies_flow_and_both_ways_at_once() {
    let (mut conn, mut end) = open().await;
    conn.begin(begin("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", BodyFraming::Chunked));
    assert_eq!(conn.sent(), Sent::Nothing);
    assert!(matches!(conn.event().await, Ok(Event::Flushed)));
    conn.push("hello".into()).unwrap();
    assert!(matches!(conn.event().await, Ok(Event::Flushed)));
    assert_eq!(conn.sent(), Sent::Incomplete);
    end.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n").await.unwrap();
    assert!(matches!(conn.event().await, Ok(Event::Head(_))));
    assert!(matches!(conn.event().await, Ok(Event::Data(b)) if b == "a"));
    conn.push(" world".into()).unwrap();
    conn.finish(None).unwrap();
    end.write_all(b"0\r\n\r\n").await.unwrap();
    assert_eq!(story(&mut conn).await, ["end"]);
    assert_eq!(conn.sent(), Sent::Complete);
    assert!(conn.is_reusable());
    assert!(got(&mut end).await.ends_with("\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"));
}

#[tokio::test(start_paused = true)]
async fn the_peer_sets_the_pace() {
    let (mut conn, mut end) = open().await;
    let size = 200_000;
    conn.begin(begin(&format!("PUT / HTTP/1.1\r\nContent-Length: {size}\r\n\r\n"), BodyFraming::Length(size)));
    let block = Bytes::from(vec![b'x'; 10_000]);
    let mut pushed = 0;
    let mut read = 0;
    while read < size as usize {
        while conn.wants_body() {
            conn.push(block.clone()).unwrap();
            pushed += block.len();
            assert!(conn.backlog() <= (64 << 10) + block.len() + 64, "bounded");
        }
        // The pipe holds 4 KiB: without a reader nothing more goes out.
        tokio::select! {
            biased;
            e = conn.event() => assert!(matches!(e, Ok(Event::Flushed))),
            () = std::future::ready(()) => {}
        }
        let mut buf = BytesMut::with_capacity(8192);
        read += end.read_buf(&mut buf).await.unwrap();
        assert!(pushed <= read + (64 << 10) + 4096 + block.len() + 64);
    }
    assert!(conn.push("x".into()).is_err(), "more than was promised");
}

#[tokio::test(start_paused = true)]
async fn the_last_byte_waits_for_leave() {
    for (framing, head, before, last) in [
        (BodyFraming::Length(5), "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n", "hell", "o"),
        (BodyFraming::Chunked, "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", "5\r\nhello\r\n", "0\r\n\r\n"),
        (BodyFraming::None, "POST / HTTP/1.1\r\n\r", "", "\n"),
    ] {
        let (mut conn, mut end) = open().await;
        let whole = if framing == BodyFraming::None { format!("{head}{last}") } else { head.to_owned() };
        conn.begin(Begin { hold: true, ..begin(&whole, framing) });
        if framing != BodyFraming::None {
            conn.push("hello".into()).unwrap();
            conn.finish(None).unwrap();
        }
        assert!(!conn.is_held(), "not yet written");
        assert!(matches!(conn.event().await, Ok(Event::Flushed)));
        assert!(conn.is_held());
        assert_eq!(conn.sent(), Sent::Incomplete);
        assert_eq!(got(&mut end).await, format!("{head}{before}"));
        conn.release();
        assert!(!conn.is_held());
        assert_eq!(conn.sent(), Sent::Incomplete, "released, not yet written");
        end.write_all(b"HTTP/1.1 204 No\r\n\r\n").await.unwrap();
        assert_eq!(story(&mut conn).await, ["head 204", "end"]);
        assert_eq!(conn.sent(), Sent::Complete);
        assert_eq!(got(&mut end).await, last);
    }
}

#[tokio::test(start_paused = true)]
async fn an_early_answer_is_seen_although_the_body_is_stuck() {
    let (mut conn, mut end) = open().await;
    conn.begin(begin("POST / HTTP/1.1\r\nContent-Length: 60000\r\n\r\n", BodyFraming::Length(60_000)));
    conn.push(vec![b'x'; 30_000].into()).unwrap();
    end.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    assert_eq!(story(&mut conn).await, ["head 413", "end"]);
    assert_eq!(conn.sent(), Sent::Incomplete);
    assert!(!conn.is_reusable(), "the rest of the body would be taken for a request");
}

#[tokio::test(start_paused = true)]
async fn an_answer_before_a_broken_write_still_counts() {
    let (mut conn, mut end) = open().await;
    conn.begin(begin("POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n", BodyFraming::Length(9)));
    end.write_all(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    drop(end);
    assert_eq!(story(&mut conn).await, ["head 403", "end"]);
    assert_eq!(conn.sent(), Sent::Nothing);
    assert!(!conn.is_reusable());
}

#[tokio::test(start_paused = true)]
async fn upgrades_hand_the_stream_over() {
    let (mut conn, mut end) = open().await;
    conn.begin(begin("GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", BodyFraming::None));
    end.write_all(b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nfirst").await.unwrap();
    assert_eq!(story(&mut conn).await, ["head 101"]);
    assert!(!conn.is_reusable());
    let (mut stream, first) = conn.into_upgraded().unwrap();
    assert_eq!(first, "first");
    stream.write_all(b"x").await.unwrap();
    assert!(got(&mut end).await.ends_with("\r\n\r\nx"));
}

#[tokio::test(start_paused = true)]
async fn waiting_can_be_given_up_at_any_point() {
    let (mut conn, mut end) = open().await;
    conn.begin(get());
    let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let mut told = Vec::new();
    for byte in answer {
        end.write_all(&[*byte]).await.unwrap();
        // Each wait is dropped when nothing more comes; nothing may be lost by that.
        while let Ok(event) = tokio::time::timeout(Duration::from_millis(1), conn.event()).await {
            match event.unwrap() {
                Event::Data(b) => told.push(String::from_utf8_lossy(&b).into_owned()),
                Event::End(_) => {
                    told.push("end".into());
                    assert_eq!(told, ["a", "b", "c", "end"]);
                    return;
                }
                _ => {}
            }
        }
    }
    panic!("no end: {told:?}");
}
