use crate::reads::read_one;
use crate::shape::{key, process_busy_ns, threads_run, BATCH, LARGE_LEN, WRITERS_LARGE};
use crate::{print_figure, Job};
use simd_r_drive::traits::{DataStoreReader, DataStoreWriter};
use simd_r_drive::DataStore;
use std::time::Instant;

/// Write keys `first` to `last` in batches; `after` is told how many keys there are, after each.
pub fn write_batches(store: &DataStore, first: u64, last: u64, mut after: impl FnMut(u64)) {
    let mut entries: Vec<(String, [u8; 8])> = Vec::with_capacity(BATCH as usize);
    let mut done = first;
    while done < last {
        let here = BATCH.min(last - done);
        entries.clear();
        entries.extend((done..done + here).map(|i| (key(i), i.to_le_bytes())));
        let refs: Vec<(&[u8], &[u8])> = entries
            .iter()
            .map(|(key, value)| (key.as_bytes(), value.as_slice()))
            .collect();
        store.batch_write(&refs).expect("batch_write");
        done += here;
        after(done);
    }
}

pub fn make(job: &Job) {
    let store = DataStore::open(job.path).expect("open");
    let (began, busy) = (Instant::now(), process_busy_ns());
    write_batches(&store, 0, job.keys, |_| {});
    print_figure(
        "write_ns",
        began.elapsed().as_nanos() as f64 / job.keys as f64,
    );
    print_figure(
        "write_busy_ns",
        (process_busy_ns() - busy) / job.keys as f64,
    );
    assert_eq!(store.len().expect("len") as u64, job.keys);
    read_one(&store, job.keys - 1);
    drop(store);
    std::fs::remove_file(job.path).expect("remove");
    make_own(job);
}

/// As the crate's own benchmark does it: lists of their own for each key and each value.
fn make_own(job: &Job) {
    let store = DataStore::open(job.path).expect("open");
    let mut entries: Vec<(Vec<u8>, Vec<u8>)> = Vec::with_capacity(BATCH as usize);
    let began = Instant::now();
    for i in 0..job.keys {
        let mut value = vec![0u8; 8];
        value.copy_from_slice(&i.to_le_bytes());
        entries.push((key(i).into_bytes(), value));
        if entries.len() as u64 == BATCH || i + 1 == job.keys {
            let refs: Vec<(&[u8], &[u8])> = entries
                .iter()
                .map(|(key, value)| (key.as_slice(), value.as_slice()))
                .collect();
            store.batch_write(&refs).expect("batch_write");
            entries.clear();
        }
    }
    print_figure(
        "write_own_ns",
        began.elapsed().as_nanos() as f64 / job.keys as f64,
    );
}

/// `keys` by each of eight threads.
pub fn singles(job: &Job) {
    let store = DataStore::open(job.path).expect("open");
    let (ns, _) = threads_run(WRITERS_LARGE, |thread| {
        let mut value = [0u8; LARGE_LEN];
        for i in thread * job.keys..(thread + 1) * job.keys {
            value[..8].copy_from_slice(&i.to_le_bytes());
            store.write(key(i).as_bytes(), &value).expect("write");
        }
    });
    let count = WRITERS_LARGE * job.keys;
    assert_eq!(store.len().expect("len") as u64, count);
    print_figure("write_ns", ns / count as f64);
}
