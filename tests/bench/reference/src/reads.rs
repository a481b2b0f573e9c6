use crate::shape::{
    busy_ns, key, key_lean, process_busy_ns, threads_run, value, Picks, BATCH, PICK_SEED,
};
use crate::{print_figure, Job};
use simd_r_drive::traits::DataStoreReader;
use simd_r_drive::DataStore;
use std::hint::black_box;
use std::time::Instant;

fn open_store(job: &Job) -> DataStore {
    let store = DataStore::open(job.path).expect("open");
    assert_eq!(store.len().expect("len") as u64, job.keys);
    store
}

/// Read key `i`, check its value and return it.
pub fn read_one(store: &DataStore, i: u64) -> u64 {
    let entry = store
        .read(key(i).as_bytes())
        .expect("read")
        .expect("absent");
    let value = black_box(value(entry.as_slice()));
    assert_eq!(value, i);
    black_box(value)
}

fn random(store: &DataStore, keys: u64, count: u64, seed: u64) {
    let mut picks = Picks(seed);
    for _ in 0..count {
        read_one(store, picks.below(keys));
    }
}

fn random_lean(store: &DataStore, keys: u64, count: u64, seed: u64) {
    let mut picks = Picks(seed);
    let mut buffer = [0u8; 32];
    for _ in 0..count {
        let i = picks.below(keys);
        let entry = store
            .read(key_lean(i, &mut buffer))
            .expect("read")
            .expect("absent");
        assert_eq!(value(entry.as_slice()), i);
    }
}

/// Each pick waits for the value before it.
fn chained(store: &DataStore, keys: u64, count: u64) {
    let mut picks = Picks(PICK_SEED);
    for _ in 0..count {
        let i = picks.below(keys);
        picks.0 = picks.0.wrapping_add(read_one(store, i).wrapping_sub(i));
    }
}

fn batch(store: &DataStore, keys: u64, count: u64) {
    let mut names: Vec<String> = Vec::with_capacity(BATCH as usize);
    let (mut first, mut done) = (0, 0);
    while done < count {
        let here = BATCH.min(keys - first).min(count - done);
        names.clear();
        names.extend((first..first + here).map(key));
        let refs: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
        let entries = store.batch_read(&refs).expect("batch_read");
        for (i, entry) in (first..).zip(&entries) {
            assert_eq!(value(entry.as_ref().expect("absent").as_slice()), i);
        }
        done += here;
        first = (first + here) % keys;
    }
}

/// As the crate's own benchmark does it: a list of its own for each key, and the number parsed back from the key.
fn batch_own(store: &DataStore, keys: u64, count: u64) {
    let mut names: Vec<Vec<u8>> = Vec::with_capacity(BATCH as usize);
    for i in 0..count {
        names.push(key(i % keys).into_bytes());
        if names.len() as u64 == BATCH || i + 1 == count {
            let refs: Vec<&[u8]> = names.iter().map(|name| name.as_slice()).collect();
            let entries = store.batch_read(&refs).expect("batch_read");
            for (name, entry) in names.iter().zip(entries) {
                let text = std::str::from_utf8(&name[b"bench-key-".len()..]).expect("digits");
                let stored = value(entry.expect("absent").as_slice());
                assert_eq!(stored, text.parse::<u64>().expect("digits"));
            }
            names.clear();
        }
    }
}

fn iterate(store: &DataStore, keys: u64) {
    let mut left = keys;
    for entry in store.iter_entries() {
        left -= 1;
        assert_eq!(value(entry.as_slice()), left);
    }
    assert_eq!(left, 0);
}

fn each(name: &str, count: u64, body: impl FnOnce()) {
    let began = busy_ns();
    body();
    print_figure(name, (busy_ns() - began) / count as f64);
}

pub fn reads(job: &Job) {
    let store = open_store(job);
    each("random_ns", job.count, || {
        random(&store, job.keys, job.count, PICK_SEED)
    });
    each("random_lean_ns", job.count, || {
        random_lean(&store, job.keys, job.count, PICK_SEED)
    });
    each("chained_ns", job.count, || {
        chained(&store, job.keys, job.count)
    });
    each("batch_ns", job.count, || batch(&store, job.keys, job.count));
    each("batch_own_ns", job.count, || {
        batch_own(&store, job.keys, job.count)
    });
    each("iterate_ns", job.keys, || iterate(&store, job.keys));
}

pub fn threads(job: &Job) {
    let store = open_store(job);
    let body = |thread| random(&store, job.keys, job.count, PICK_SEED + thread);
    let one = threads_run(1, body);
    let two = threads_run(2, body);
    print_figure("scaling", 2.0 * one.0 / two.0);
    print_figure("scaling_busy", 4.0 * one.1 / two.1);
}

/// Memory of this process that no file backs, in bytes.
fn memory_anonymous() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let line = status
        .lines()
        .find(|line| line.starts_with("RssAnon:"))
        .expect("RssAnon");
    let kib = line.split_whitespace().nth(1).expect("a number");
    kib.parse::<f64>().expect("a number") * 1024.0
}

pub fn open(job: &Job) {
    let before = memory_anonymous();
    let (began, busy) = (Instant::now(), process_busy_ns());
    let store = open_store(job);
    print_figure("open_ns", began.elapsed().as_nanos() as f64);
    print_figure("open_busy_ns", process_busy_ns() - busy);
    print_figure(
        "memory_bytes",
        (memory_anonymous() - before) / job.keys as f64,
    );
    read_one(&store, job.keys / 2);
}
