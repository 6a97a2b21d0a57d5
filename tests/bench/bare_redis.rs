//! What one Redis gives by itself: the barest loops over the keys of kombu, on one
//! connection each, and an eye on how far a worker has come.

use redis::io::tcp::TcpSettings;
use redis::{Client, Connection, IntoConnectionInfo, Pipeline, Script, cmd};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// Takes as many messages as there are tags into kombu's `unacked`, in one step, so that
/// whoever dies loses none: what a good client does in one round trip, with a tag of its own.
const TAKE: &str = "
    local messages = redis.call('RPOP', KEYS[1], #ARGV - 1)
    if not messages then return {} end
    local held, index = {}, {}
    for n, message in ipairs(messages) do
        local tag = ARGV[n + 1]
        held[2 * n - 1], held[2 * n] = tag, '[' .. message .. ',\"\",\"' .. KEYS[1] .. '\"]'
        index[2 * n - 1], index[2 * n] = ARGV[1], tag
    end
    redis.call('HSET', KEYS[2], unpack(held))
    redis.call('ZADD', KEYS[3], unpack(index))
    return messages";

fn connect(url: &str) -> Connection {
    let info = url.into_connection_info().unwrap();
    let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
    Client::open(info).unwrap().get_connection().unwrap()
}

fn rate(count: usize, start: Instant) -> f64 {
    count as f64 / start.elapsed().as_secs_f64()
}

/// Pushes `count` messages of so many bytes, `batch` of them in a round trip; messages per second.
pub fn push(url: &str, queue: &str, count: usize, bytes: usize, batch: usize) -> f64 {
    let mut redis = connect(url);
    let message = "x".repeat(bytes);
    let (start, mut left) = (Instant::now(), count);
    while left > 0 {
        let mut pipe = Pipeline::new();
        let now = left.min(batch);
        for _ in 0..now {
            pipe.cmd("LPUSH").arg(queue).arg(&message).ignore();
        }
        pipe.exec(&mut redis).unwrap();
        left -= now;
    }
    rate(count, start)
}

/// Takes and removes `batch` messages at a time until there are none: two round trips,
/// with results stored and announced as Celery does it if they are `kept`. Prints how many
/// there were and how many in a second.
pub fn drain(url: &str, queue: &str, kept: bool, batch: usize) {
    let mut redis = connect(url);
    let take = Script::new(TAKE);
    take.load(&mut redis).unwrap();
    let (start, mut drained) = (Instant::now(), 0);
    loop {
        let tags: Vec<String> = (drained..drained + batch).map(tag).collect();
        let mut call = take.key(queue);
        call.key("unacked").key("unacked_index").arg(seconds()).arg(&tags);
        let taken: Vec<Vec<u8>> = call.invoke(&mut redis).unwrap();
        if taken.is_empty() {
            println!("{drained} {:.0}", rate(drained, start));
            return;
        }
        let mut pipe = Pipeline::new();
        let tags = &tags[..taken.len()];
        if kept {
            tags.iter().for_each(|tag| store(&mut pipe, tag));
        }
        pipe.cmd("HDEL").arg("unacked").arg(tags).ignore();
        pipe.cmd("ZREM").arg("unacked_index").arg(tags).ignore();
        pipe.exec(&mut redis).unwrap();
        drained += taken.len();
    }
}

/// As long as a UUID.
fn tag(number: usize) -> String {
    format!("00000000-0000-7000-8000-{number:012}")
}

fn seconds() -> f64 {
    nanoseconds() as f64 / 1e9
}

fn nanoseconds() -> u128 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos()
}

/// A result as Celery's workers store and announce it.
fn store(pipe: &mut Pipeline, task_id: &str) {
    let key = format!("celery-task-meta-{task_id}");
    let result = format!(
        r#"{{"status": "SUCCESS", "result": null, "traceback": null, "children": [], "date_done": "2026-01-01T00:00:00.000000+00:00", "task_id": "{task_id}"}}"#
    );
    pipe.cmd("SETEX").arg(&key).arg(86_400).arg(&result).ignore();
    pipe.cmd("PUBLISH").arg(&key).arg(&result).ignore();
}

/// The way of a message by itself, one every `pause`: from before its `LPUSH` to the return
/// of a `BRPOP` on another connection. Prints median and 99th percentile in milliseconds.
pub fn passage(url: &str, count: usize, pause: Duration) {
    let mut taker = connect(url);
    let taking = thread::spawn(move || {
        let mut delays = Vec::new();
        for _ in 0..count {
            let (_, sent): (String, u128) =
                cmd("BRPOP").arg("passage").arg(0).query(&mut taker).unwrap();
            delays.push((nanoseconds() - sent) as f64 / 1e6);
        }
        delays
    });
    let (mut giver, start) = (connect(url), Instant::now());
    for n in 0..count {
        thread::sleep((start + pause * n as u32).saturating_duration_since(Instant::now()));
        cmd("LPUSH").arg("passage").arg(nanoseconds()).exec(&mut giver).unwrap();
    }
    let mut delays = taking.join().unwrap();
    delays.sort_by(f64::total_cmp);
    println!("{:.3} {:.3}", delays[delays.len() / 2], delays[delays.len() * 99 / 100]);
}

/// Waits until the `lengths` (`LLEN KEY`, `HLEN KEY`) are zero. Prints the seconds from the moment
/// when at least `warm` of `total` were gone to that when all were, and how many went in them.
/// Looking costs some of what is measured, so it is done rarely until little is left; and lists come
/// before the hash that their messages go to, so that none is missed on its way.
pub fn watch(url: &str, total: usize, warm: usize, lengths: &[&str]) {
    let mut redis = connect(url);
    let mut pipe = Pipeline::new();
    for words in lengths.chunks(2) {
        pipe.cmd(words[0]).arg(words[1]);
    }
    let mut began = None;
    loop {
        let left: usize = pipe.query::<Vec<usize>>(&mut redis).unwrap().iter().sum();
        let (now, gone) = (Instant::now(), total.saturating_sub(left));
        let (start, before) = match began {
            None if gone < warm => (now, total),
            None => *began.insert((now, gone)),
            Some(began) => began,
        };
        if left == 0 {
            println!("{} {}", (now - start).as_secs_f64(), total - before);
            return;
        }
        let pause = if left < total / 50 { 1 } else { 10 };
        thread::sleep(Duration::from_millis(pause));
    }
}

/// Waits until all `ids` have results. Prints the seconds to that from the moment when there were
/// about `warm` results, of any tasks, and how many results came in them.
pub fn results(url: &str, warm: usize, ids: &[&str]) {
    let mut redis = connect(url);
    let keys: Vec<String> = ids.iter().map(|id| format!("celery-task-meta-{id}")).collect();
    let kept = |redis: &mut Connection| {
        cmd("KEYS").arg("celery-task-meta-*").query::<Vec<String>>(redis).unwrap().len()
    };
    // Chords have other keys, few for each.
    let size = |redis: &mut Connection| cmd("DBSIZE").query::<usize>(redis).unwrap();
    let before = size(&mut redis);
    // Whoever asks more often, or listens, takes from what is measured.
    while size(&mut redis) < before + warm {
        thread::sleep(Duration::from_millis(5));
    }
    let (start, first) = (Instant::now(), kept(&mut redis));
    while cmd("EXISTS").arg(&keys).query::<usize>(&mut redis).unwrap() < keys.len() {
        thread::sleep(Duration::from_millis(5));
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{seconds} {}", kept(&mut redis) - first);
}
