//! The Rust crate's side of tests/bench/engine: the same work, in the same shape, by the crate's own calls.
//! One measurement a process: `engine-reference VERB PATH KEYS COUNT` prints figures, a line each.

mod latency;
mod live;
mod reads;
mod shape;
mod writes;

use std::path::Path;
use std::process::exit;

/// What one measurement is asked for.
pub struct Job<'a> {
    pub path: &'a Path,
    pub keys: u64,
    /// What it means is the verb's.
    pub count: u64,
}

/// A figure, for whoever started this process.
pub fn print_figure(name: &str, number: f64) {
    println!("{name} {number}");
}

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let number = |index: usize| words.get(index).and_then(|word| word.parse::<u64>().ok());
    let (Some(verb), Some(path), Some(keys), Some(count)) =
        (words.get(1), words.get(2), number(3), number(4))
    else {
        eprintln!("usage: engine-reference VERB PATH KEYS COUNT");
        exit(64);
    };
    let job = Job {
        path: Path::new(path),
        keys,
        count,
    };
    match verb.as_str() {
        "reads" => reads::reads(&job),
        "threads" => reads::threads(&job),
        // The crate has no snapshot index.
        "open" | "snapshot" => reads::open(&job),
        "make" => writes::make(&job),
        "singles" => writes::singles(&job),
        "grow" => live::grow(&job),
        _ => {
            eprintln!("engine-reference: there is no {verb}");
            exit(64);
        }
    }
}
