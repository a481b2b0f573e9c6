//! The work's shape: the twin of tests/bench/engine/shape.h.

use std::sync::Barrier;
use std::time::Instant;

pub const BATCH: u64 = 1024;
pub const WRITERS_LARGE: u64 = 8;
pub const LARGE_LEN: usize = 128;
pub const PICK_SEED: u64 = 0x5eed;

/// A key as the crate's own benchmark formats it.
pub fn key(i: u64) -> String {
    format!("bench-key-{i}")
}

/// The same bytes as our side and the bare loops make them (shape.h): all digits at once, and nothing allocated.
pub fn key_lean(i: u64, out: &mut [u8; 32]) -> &[u8] {
    let fours = i / 10000 | (i % 10000) << 32;
    let hundreds = (fours * 10486 >> 20) & 0x0000_007f_0000_007f;
    let twos = hundreds | (fours - 100 * hundreds) << 16;
    let tens = (twos * 103 >> 10) & 0x000f_000f_000f_000f;
    let digits = tens | (twos - 10 * tens) << 8;
    let zeros = (digits | 1 << 56).trailing_zeros() & !7;
    let digits = (digits | 0x3030_3030_3030_3030) >> zeros;
    let middle = u64::from(b'y') | u64::from(b'-') << 8 | digits << 16;
    out[..8].copy_from_slice(b"bench-ke");
    out[8..16].copy_from_slice(&middle.to_le_bytes());
    out[16..24].copy_from_slice(&(digits >> 48).to_le_bytes());
    &out[..18 - zeros as usize / 8]
}

/// splitmix64.
pub struct Picks(pub u64);

impl Picks {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        ((u128::from(z) * u128::from(limit)) >> 64) as u64
    }
}

/// The value of an entry.
pub fn value(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("a value is 8 bytes"))
}

fn clock_ns(clock: libc::clockid_t) -> f64 {
    let mut at = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel fills the struct that it is given.
    let result = unsafe { libc::clock_gettime(clock, &mut at) };
    assert_eq!(result, 0);
    at.tv_sec as f64 * 1e9 + at.tv_nsec as f64
}

/// This thread's time on a processor, in nanoseconds.
pub fn busy_ns() -> f64 {
    clock_ns(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// The same of all threads of the process.
pub fn process_busy_ns() -> f64 {
    clock_ns(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// Let `count` threads run `body`, all beginning together.
/// Returns nanoseconds from the first's beginning to the last's end, and those on a processor, of all together.
pub fn threads_run(count: u64, body: impl Fn(u64) + Sync) -> (f64, f64) {
    let barrier = Barrier::new(count as usize);
    let times: Vec<(Instant, Instant, f64)> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..count)
            .map(|thread| {
                let (barrier, body) = (&barrier, &body);
                scope.spawn(move || {
                    barrier.wait();
                    let began = Instant::now();
                    body(thread);
                    (began, Instant::now(), busy_ns())
                })
            })
            .collect();
        handles
            .into_iter()
            .map(|handle| handle.join().expect("a thread failed"))
            .collect()
    });
    let first = times
        .iter()
        .map(|(began, ..)| *began)
        .min()
        .expect("a thread");
    let last = times
        .iter()
        .map(|(_, ended, _)| *ended)
        .max()
        .expect("a thread");
    let busy = times.iter().map(|(.., busy)| busy).sum();
    ((last - first).as_nanos() as f64, busy)
}
