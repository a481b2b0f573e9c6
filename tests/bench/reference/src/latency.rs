//! How long reads take: the twin of tests/bench/engine/latency.c.

use crate::print_figure;

const STEPS: u64 = 64;
const SLOTS: usize = 64 * 40;

/// How often the scheduler took the processor from this thread.
pub fn preempted() -> i64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the kernel fills the struct that it is given.
    let usage = unsafe {
        assert_eq!(libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()), 0);
        usage.assume_init()
    };
    usage.ru_nivcsw
}

#[derive(Clone)]
struct Half {
    slots: Vec<u64>,
    count: u64,
    sum: u64,
    longest: u64,
}

impl Half {
    fn new() -> Self {
        Half {
            slots: vec![0; SLOTS],
            count: 0,
            sum: 0,
            longest: 0,
        }
    }

    fn slot(ns: u64) -> usize {
        if ns < STEPS {
            return ns as usize;
        }
        let power = 63 - u64::from(ns.leading_zeros());
        let slot = (power - 5) * STEPS + (ns >> (power - 6)) - STEPS;
        (slot as usize).min(SLOTS - 1)
    }

    fn begin(slot: usize) -> u64 {
        let slot = slot as u64;
        if slot < STEPS {
            slot
        } else {
            (slot % STEPS + STEPS) << (slot / STEPS - 1)
        }
    }

    fn add(&mut self, ns: u64) {
        self.slots[Self::slot(ns)] += 1;
        self.count += 1;
        self.sum += ns;
        self.longest = self.longest.max(ns);
    }

    fn percentile(&self, share: f64) -> u64 {
        let rank = (self.count as f64 * share) as u64;
        let mut seen = 0;
        for (slot, count) in self.slots.iter().enumerate() {
            seen += count;
            if seen > rank {
                return Self::begin(slot);
            }
        }
        self.longest
    }

    fn print(&self, name: &str) {
        if self.count == 0 {
            return;
        }
        print_figure(&format!("{name}_p50"), self.percentile(0.5) as f64);
        print_figure(&format!("{name}_p99"), self.percentile(0.99) as f64);
        print_figure(&format!("{name}_longest"), self.longest as f64);
        print_figure(&format!("{name}_count"), self.count as f64);
        print_figure(&format!("{name}_mean"), self.sum as f64 / self.count as f64);
    }
}

/// All reads, and those that were not interrupted.
#[derive(Clone)]
pub struct Latency {
    all: Half,
    quiet: Half,
}

impl Latency {
    pub fn new() -> Self {
        Latency {
            all: Half::new(),
            quiet: Half::new(),
        }
    }

    pub fn add(&mut self, ns: u64, interrupted: bool) {
        self.all.add(ns);
        if !interrupted {
            self.quiet.add(ns);
        }
    }

    pub fn print(&self, name: &str) {
        self.all.print(name);
        self.quiet.print(&format!("{name}_quiet"));
    }
}
