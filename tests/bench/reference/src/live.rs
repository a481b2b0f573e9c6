use crate::latency::{preempted, Latency};
use crate::shape::{key, value, Picks, PICK_SEED};
use crate::writes::write_batches;
use crate::{print_figure, Job};
use simd_r_drive::traits::DataStoreReader;
use simd_r_drive::DataStore;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

/// A batch of one: `read` takes the index's lock and then the mapping's, a write the other way round, and sooner or later
/// a reader and a writer stop each other for good.
fn read_one(store: &DataStore, i: u64) {
    let entries = store.batch_read(&[key(i).as_bytes()]).expect("batch_read");
    let entry = entries[0].as_ref().expect("absent");
    assert_eq!(value(entry.as_slice()), i);
}

const PHASES: usize = 3;

struct Watch {
    keys: AtomicU64,
    phase: AtomicUsize,
    reads: AtomicU64,
    stop: AtomicBool,
}

impl Watch {
    fn run(&self, store: &DataStore) -> (Latency, Vec<Latency>) {
        let (mut whole, mut phases) = (Latency::new(), vec![Latency::new(); PHASES]);
        let mut picks = Picks(PICK_SEED);
        let mut switches = preempted();
        while !self.stop.load(Ordering::Relaxed) {
            let i = picks.below(self.keys.load(Ordering::Acquire));
            let began = Instant::now();
            read_one(store, i);
            let ns = began.elapsed().as_nanos() as u64;
            let now = preempted();
            whole.add(ns, now != switches);
            phases[self.phase.load(Ordering::Relaxed)].add(ns, now != switches);
            switches = now;
            self.reads.fetch_add(1, Ordering::Relaxed);
        }
        (whole, phases)
    }
}

/// From `keys` to `count` keys, read by one thread while another writes.
pub fn grow(job: &Job) {
    let store = DataStore::open(job.path).expect("open");
    write_batches(&store, 0, job.keys, |_| {});
    let watch = Watch {
        keys: AtomicU64::new(job.keys),
        phase: AtomicUsize::new(0),
        reads: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    };
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| watch.run(&store));
        while watch.reads.load(Ordering::Relaxed) == 0 {
            std::thread::yield_now();
        }
        let began = Instant::now();
        write_batches(&store, job.keys, job.count, |keys| {
            watch.keys.store(keys, Ordering::Release);
            let phase = usize::from(keys > 2 * job.keys) + usize::from(keys > 4 * job.keys);
            watch.phase.store(phase, Ordering::Relaxed);
        });
        let ns = began.elapsed().as_nanos() as f64;
        watch.stop.store(true, Ordering::Relaxed);
        let (whole, phases) = reader.join().expect("the reader failed");
        print_figure("write_ns", ns / (job.count - job.keys) as f64);
        whole.print("read");
        for (index, phase) in phases.iter().enumerate() {
            phase.print(&format!("read{index}"));
        }
    });
    assert_eq!(store.len().expect("len") as u64, job.count);
}
