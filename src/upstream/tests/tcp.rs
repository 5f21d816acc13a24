use super::*;
use tokio::net::TcpListener;

async fn listen() -> (TcpListener, Target) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = target(listener.local_addr().unwrap());
    (listener, to)
}

/// Waits until something holds, for two seconds at most.
async fn until(mut holds: impl FnMut() -> bool) -> bool {
    for _ in 0..2_000 {
        if holds() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    false
}

#[tokio::test]
async fn a_refusal_and_a_silence_are_told_apart() {
    let (listener, to) = listen().await;
    drop(listener);
    let pool = Pool::new(TcpDial);
    let e = pool.checkout(&to).await.unwrap_err();
    assert_eq!((e.step, e.timed_out()), ("connect", false));
    // A listener whose backlog is full answers nothing.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    socket.listen(0).unwrap();
    let full = Target { connect_timeout: Duration::from_millis(50), ..target(socket.local_addr().unwrap().as_socket().unwrap()) };
    let mut kept = Vec::new();
    let e = loop {
        match pool.dial(&full).await {
            Ok(conn) => kept.push(conn),
            Err(e) => break e,
        }
        assert!(kept.len() < 10);
    };
    assert!(e.timed_out(), "{e}");
}

#[tokio::test]
async fn a_connection_is_used_again_until_the_peer_closes_it() {
    let (listener, to) = listen().await;
    let pool = Pool::new(TcpDial);
    let mut conn = pool.checkout(&to).await.unwrap();
    let (mut far, _) = listener.accept().await.unwrap();
    for round in 0..3 {
        conn.begin(get());
        far.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
        assert_eq!(story(&mut conn).await, ["head 200", "data ok", "end"]);
        far.read_buf(&mut BytesMut::with_capacity(4096)).await.unwrap();
        pool.checkin(conn);
        assert_eq!(pool.idle(7), 1, "round {round}");
        conn = pool.reuse(&to).unwrap();
    }
    conn.begin(get());
    far.write_all(b"HTTP/1.1 204 No\r\n\r\n").await.unwrap();
    story(&mut conn).await;
    pool.checkin(conn);
    drop(far);
    assert!(
        until(|| {
            pool.sweep();
            pool.idle(7) == 0
        })
        .await
    );
}

#[tokio::test]
async fn stray_bytes_on_an_idle_connection_poison_nothing() {
    let (listener, to) = listen().await;
    let pool = Pool::new(TcpDial);
    pool.warm(&Target { idle: IdleConnections { warm: 1, ..to.idle }, ..to.clone() }).await.unwrap();
    let (mut far, _) = listener.accept().await.unwrap();
    far.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison").await.unwrap();
    assert!(
        until(|| {
            pool.sweep();
            pool.idle(7) == 0
        })
        .await
    );
}

#[tokio::test]
async fn a_reset_is_a_failure_and_tells_how_much_was_sent() {
    let (listener, to) = listen().await;
    let pool = Pool::new(TcpDial);
    let mut conn = pool.checkout(&to).await.unwrap();
    let (far, _) = listener.accept().await.unwrap();
    conn.begin(begin("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n", BodyFraming::Length(5)));
    conn.push("hel".into()).unwrap();
    assert!(matches!(conn.event().await, Ok(Event::Flushed)));
    socket2::SockRef::from(&far).set_linger(Some(Duration::ZERO)).unwrap();
    drop(far);
    assert!(matches!(conn.event().await, Err(Failure::Broken(_))));
    assert_eq!(conn.sent(), Sent::Incomplete);
    assert!(!conn.is_reusable() && !conn.heard());
}

#[tokio::test]
async fn the_kernel_says_what_the_peer_has() {
    let (listener, to) = listen().await;
    let pool = Pool::new(TcpDial);
    let mut conn = pool.checkout(&to).await.unwrap();
    let (far, _) = listener.accept().await.unwrap();
    conn.begin(Begin { hold: true, ..begin("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n", BodyFraming::Length(5)) });
    conn.push("hello".into()).unwrap();
    assert!(matches!(conn.event().await, Ok(Event::Flushed)));
    assert!(conn.is_held());
    assert!(until(|| conn.delivery().is_some_and(|d| d.complete())).await, "acknowledged by the far kernel, though nobody reads");
    drop(far);
}
