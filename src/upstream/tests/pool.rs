use super::*;

/// A connection that has just served.
async fn served(pool: &Pool, pipes: &Pipes, to: &Target) -> (Conn, DuplexStream) {
    let mut conn = pool.dial(to).await.unwrap();
    let mut end = pipes.end();
    conn.begin(get());
    end.write_all(b"HTTP/1.1 204 No\r\n\r\n").await.unwrap();
    story(&mut conn).await;
    (conn, end)
}

#[tokio::test(start_paused = true)]
async fn the_last_used_is_the_next_used() {
    let pipes = Pipes::default();
    let pool = Pool::new(pipes.clone());
    let to = nowhere();
    let (a, mut far_a) = served(&pool, &pipes, &to).await;
    let (b, mut far_b) = served(&pool, &pipes, &to).await;
    pool.checkin(a);
    pool.checkin(b);
    let mut conn = pool.checkout(&to).await.unwrap();
    assert!(conn.is_reused() && !conn.heard());
    got(&mut far_a).await;
    got(&mut far_b).await;
    conn.begin(get());
    tokio::select! { _ = conn.event() => {}, () = tokio::time::sleep(Duration::from_millis(1)) => {} }
    assert!(got(&mut far_a).await.is_empty());
    assert!(got(&mut far_b).await.starts_with("GET"));
    assert_eq!(pool.counts(), Counts { dialled: 2, reused: 1, ..Counts::default() });
}

#[tokio::test(start_paused = true)]
async fn dead_talkative_and_outdated_ones_are_dropped() {
    let pipes = Pipes::default();
    let pool = Pool::new(pipes.clone());
    let to = nowhere();
    let (closed, far) = served(&pool, &pipes, &to).await;
    pool.checkin(closed);
    drop(far);
    assert!(pool.reuse(&to).is_none(), "closed");

    let (talks, mut far) = served(&pool, &pipes, &to).await;
    pool.checkin(talks);
    far.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
    assert!(pool.reuse(&to).is_none(), "says what nobody asked for");

    let (old, _far) = served(&pool, &pipes, &to).await;
    pool.checkin(old);
    assert!(pool.reuse(&Target { epoch: 2, ..to.clone() }).is_none(), "of another epoch");
    assert_eq!(pool.idle(7), 0);

    let (late, _far) = served(&pool, &pipes, &to).await;
    pool.checkin(late);
    tokio::time::advance(Duration::from_secs(29)).await;
    pool.sweep();
    assert_eq!(pool.idle(7), 1);
    tokio::time::advance(Duration::from_secs(2)).await;
    pool.sweep();
    assert_eq!(pool.idle(7), 0, "too old");
    assert_eq!(pool.counts().dropped, 4);
}

#[tokio::test(start_paused = true)]
async fn there_is_a_bound_and_the_oldest_goes() {
    let pipes = Pipes::default();
    let pool = Pool::new(pipes.clone());
    let to = nowhere();
    let mut ends = Vec::new();
    for _ in 0..4 {
        let (conn, end) = served(&pool, &pipes, &to).await;
        ends.push((conn, end));
    }
    let mut far = Vec::new();
    for (conn, end) in ends {
        pool.checkin(conn);
        far.push(end);
    }
    assert_eq!(pool.idle(7), 3);
    got(&mut far[0]).await;
    assert_eq!(far[0].read(&mut [0; 1]).await.unwrap(), 0, "the first one was closed");
}

#[tokio::test(start_paused = true)]
async fn what_broke_does_not_come_back() {
    let pipes = Pipes::default();
    let pool = Pool::new(pipes.clone());
    let to = nowhere();
    let mut conn = pool.checkout(&to).await.unwrap();
    conn.begin(get());
    pipes.end().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhal").await.unwrap();
    story(&mut conn).await;
    pool.checkin(conn);
    let unused = pool.checkout(&to).await.unwrap();
    pool.checkin(unused);
    assert_eq!(pool.idle(7), 0, "nor does one that was never asked anything");
}

#[tokio::test(start_paused = true)]
async fn spares_are_kept_warm_and_regions_dropped() {
    let pipes = Pipes::default();
    let pool = Pool::new(pipes.clone());
    let to = nowhere();
    assert_eq!(pool.warm(&to).await.unwrap(), 2);
    assert_eq!(pool.warm(&to).await.unwrap(), 0);
    assert!(pool.reuse(&to).unwrap().is_reused());
    assert_eq!(pool.warm(&to).await.unwrap(), 1);
    pool.retain(|id, epoch| id == 7 && epoch == 1);
    assert_eq!(pool.idle(7), 2);
    let moved = Target { epoch: 2, ..to.clone() };
    assert_eq!(pool.warm(&moved).await.unwrap(), 2, "spares of another epoch are none");
    pool.retain(|_, epoch| epoch == 2);
    assert_eq!(pool.idle(7), 2);
    pool.drop_endpoint(7);
    assert_eq!(pool.idle(7), 0);
    *pipes.refuse.borrow_mut() = true;
    assert_eq!(pool.warm(&to).await.unwrap_err().to_string(), "connect to 127.0.0.1:1: connection refused");
    assert_eq!(pool.counts().failed, 1);
}
