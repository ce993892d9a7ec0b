//! The load on a store and what it costs.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cartwheel_storage::{Batch, Durability, Store};
use rustix::fs::FallocateFlags;
use rustix::time::{ClockId, clock_gettime};

const BATCH: u64 = 8;
const INDEX_EVERY: u64 = 10;
const CHUNKS: u64 = 4;

/// How much of what is done.
#[derive(Clone, Copy)]
pub struct Plan {
    pub keys: u64,
    pub value_size: usize,
    pub is_text: bool,
}

/// The figures of a run, each with its name.
pub type Figures = Vec<(&'static str, f64)>;

/// CPU time in us: of this thread, and of the whole process.
#[derive(Clone, Copy, Default)]
struct Cpu {
    ours: f64,
    all: f64,
}

impl Cpu {
    fn now() -> Self {
        let of = |clock| {
            let time = clock_gettime(clock);
            time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
        };
        Self { ours: of(ClockId::ThreadCPUTime), all: of(ClockId::ProcessCPUTime) }
    }

    /// Adds what `work` takes, with the background work that it leaves behind.
    fn add(&mut self, work: impl FnOnce()) {
        let begun = Self::now();
        work();
        wait_until_idle();
        let end = Self::now();
        self.ours += end.ours - begun.ours;
        self.all += end.all - begun.all;
    }
}

/// Waits until no thread of the engine runs.
fn wait_until_idle() {
    let mut idle = 0;
    let begun = Instant::now();
    while idle < 4 && begun.elapsed() < Duration::from_secs(60) {
        let before = Cpu::now();
        std::thread::sleep(Duration::from_millis(20));
        let after = Cpu::now();
        let is_idle = (after.all - before.all) - (after.ours - before.ours) < 200.0;
        idle = if is_idle { idle + 1 } else { 0 };
    }
}

/// Chooses keys: YCSB's zipfian with theta 0.99, whose ranks are spread over the keys.
struct Zipfian {
    keys: u64,
    zeta: f64,
    eta: f64,
}

const THETA: f64 = 0.99;

impl Zipfian {
    fn new(keys: u64) -> Self {
        let zeta = |n: u64| (1..=n).map(|rank| (rank as f64).powf(-THETA)).sum::<f64>();
        let (all, two) = (zeta(keys), zeta(2));
        let eta = (1.0 - (2.0 / keys as f64).powf(1.0 - THETA)) / (1.0 - two / all);
        Self { keys, zeta: all, eta }
    }

    fn next(&self, random: &mut fastrand::Rng) -> u64 {
        let share = random.f64();
        let scaled = share * self.zeta;
        let rank = if scaled < 1.0 {
            0
        } else if scaled < 1.0 + 0.5_f64.powf(THETA) {
            1
        } else {
            (self.keys as f64 * (self.eta * share - self.eta + 1.0).powf(1.0 / (1.0 - THETA))) as u64
        };
        mix(rank) % self.keys
    }
}

/// Splitmix64.
fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

fn key(number: u64) -> Bytes {
    let mut key = Vec::with_capacity(40);
    key.extend_from_slice(&mix(number).to_be_bytes());
    key.extend_from_slice(&mix(!number).to_be_bytes());
    key.extend_from_slice(format!("bucket/customer{number:09}").as_bytes());
    key.into()
}

/// Makes batches and reads.
struct Load<'a> {
    store: &'a mut dyn Store,
    plan: Plan,
    zipfian: Zipfian,
    random: fastrand::Rng,
    /// Records are parts of it.
    pool: Vec<u8>,
    batches: u64,
    bytes: u64,
}

impl<'a> Load<'a> {
    fn new(store: &'a mut dyn Store, plan: Plan) -> Self {
        let mut random = fastrand::Rng::with_seed(7);
        let mut pool = vec![0; 4 << 20];
        random.fill(&mut pool);
        if plan.is_text {
            // Two to three times smaller when compressed, as JSON is.
            pool.chunks_mut(16).for_each(|words| words[4..].copy_from_slice(br#"","name": "x"#));
        }
        Self { store, plan, zipfian: Zipfian::new(plan.keys), random, pool, batches: 0, bytes: 0 }
    }

    fn put(&mut self, numbers: impl IntoIterator<Item = u64>, durability: Durability) {
        let mut batch = Batch::new();
        let mut last = 0;
        for number in numbers {
            let begin = self.random.usize(..self.pool.len() - self.plan.value_size);
            batch.put(key(number), Bytes::copy_from_slice(&self.pool[begin..begin + self.plan.value_size]));
            last = number;
        }
        if self.batches.is_multiple_of(INDEX_EVERY) {
            batch.add_index([&self.batches.to_be_bytes()[..], &key(last)].concat().into());
        }
        self.batches += 1;
        self.bytes += batch.bytes();
        self.store.commit(batch, durability).expect("the batch is committed");
    }

    fn put_zipfian(&mut self, puts: u64, durability: Durability) {
        for _ in 0..puts / BATCH {
            let numbers: [u64; BATCH as usize] = std::array::from_fn(|_| self.zipfian.next(&mut self.random));
            self.put(numbers, durability);
        }
    }

    fn get(&mut self, number: u64) {
        let record = self.store.get(&key(number)).expect("the record is read");
        std::hint::black_box(record.expect("there is a record"));
    }

    fn get_zipfian(&mut self, gets: u64) {
        for _ in 0..gets {
            let number = self.zipfian.next(&mut self.random);
            self.get(number);
        }
    }

    fn get_uniform(&mut self, gets: u64) {
        for _ in 0..gets {
            let number = self.random.u64(..self.plan.keys);
            self.get(number);
        }
    }
}

/// Loads all keys, overwrites them with reads between, and ends with half puts and half reads.
///
/// Reads are measured at four moments, since what they cost depends on how full the memtable is.
pub fn run(store: &mut dyn Store, plan: Plan, dir: &Path) -> Figures {
    let mut load = Load::new(store, plan);
    let (mut loading, mut overwrites, mut zipfian, mut uniform, mut mixed) =
        (Cpu::default(), Cpu::default(), Cpu::default(), Cpu::default(), Cpu::default());
    let keys = plan.keys / BATCH * BATCH;
    loading.add(|| {
        // 7919 is prime, so every key is loaded once, in no order that the overwrites follow.
        let number = |turn: u64| turn * 7919 % plan.keys;
        for batch in 0..keys / BATCH {
            load.put((0..BATCH).map(|turn| number(batch * BATCH + turn)), Durability::Os);
        }
    });
    let (puts, gets) = (plan.keys / CHUNKS, plan.keys / 2 / CHUNKS);
    for _ in 0..CHUNKS {
        overwrites.add(|| load.put_zipfian(puts, Durability::Os));
        zipfian.add(|| load.get_zipfian(gets));
        uniform.add(|| load.get_uniform(gets));
    }
    let half = plan.keys / 4;
    mixed.add(|| {
        for _ in 0..half / BATCH {
            load.put_zipfian(BATCH, Durability::Os);
            load.get_zipfian(BATCH);
        }
    });
    let written = in_proc("io", "wchar:") / load.bytes as f64;
    let background = |of: Cpu| of.all - of.ours;
    vec![
        ("load us", loading.all / keys as f64),
        ("put us", overwrites.all / (CHUNKS * puts) as f64),
        ("put bg us", background(overwrites) / (CHUNKS * puts) as f64),
        ("get zipf us", zipfian.all / (CHUNKS * gets) as f64),
        ("get unif us", uniform.all / (CHUNKS * gets) as f64),
        ("mixed us", mixed.all / (2 * half) as f64),
        ("written x", written),
        ("disk MiB", disk_bytes(dir) as f64 / f64::from(1 << 20)),
        ("RSS MiB", in_proc("status", "VmRSS:") / 1024.0),
        ("peak MiB", in_proc("status", "VmHWM:") / 1024.0),
    ]
}

/// Commits synced batches to an empty store.
pub fn run_synced(store: &mut dyn Store, plan: Plan) -> Figures {
    let puts = (plan.keys / 10).min((48 << 20) / (plan.value_size as u64 + 100));
    let mut load = Load::new(store, plan);
    let mut cpu = Cpu::default();
    let mut seconds = 0.0;
    cpu.add(|| {
        let begun = Instant::now();
        load.put_zipfian(puts, Durability::Synced);
        seconds = begun.elapsed().as_secs_f64();
    });
    let batches = (puts / BATCH) as f64;
    vec![("put us", cpu.all / puts as f64), ("commit wall us", seconds * 1e6 / batches)]
}

/// What is done before the first commit with the first journal, which fjall makes as a sparse file of 64 MiB.
#[derive(Clone, Copy)]
pub enum Journal {
    AsItIs,
    /// Its blocks are allocated, but not written.
    Allocated,
    /// Its blocks are allocated and written with zeros.
    Written,
    /// It grows with each commit.
    Empty,
}

impl Journal {
    pub fn prepare(self, dir: &Path) {
        let journals: Vec<_> = fs::read_dir(dir)
            .expect("the directory is read")
            .map(|entry| entry.expect("the directory is read").path())
            .filter(|path| path.extension().is_some_and(|end| end == "jnl"))
            .collect();
        let [journal] = &journals[..] else { return };
        let file = OpenOptions::new().read(true).write(true).open(journal).expect("the journal opens");
        let bytes = file.metadata().expect("the journal has a size").len();
        assert!(fs::read(journal).expect("the journal is read").iter().all(|&byte| byte == 0), "no commit yet");
        match self {
            Self::AsItIs => return,
            Self::Allocated => {
                rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes).expect("blocks are allocated")
            }
            Self::Written => {
                let zeros = vec![0; 1 << 20];
                for begin in (0..bytes).step_by(zeros.len()) {
                    file.write_all_at(&zeros, begin).expect("zeros are written");
                }
            }
            Self::Empty => file.set_len(0).expect("the journal is cut"),
        }
        file.sync_all().expect("the journal is synced");
    }
}

/// The number after `name` in a file of `/proc/self`.
fn in_proc(file: &str, name: &str) -> f64 {
    let text = fs::read_to_string(Path::new("/proc/self").join(file)).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(f64::NAN)
}

/// What the files take on the disk, without their holes.
fn disk_bytes(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => disk_bytes(&entry.path()),
            Ok(meta) => meta.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}
