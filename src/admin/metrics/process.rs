//! This process, under the names that Prometheus' client libraries agree on. Read from `/proc`; where there is none
//! (no Linux), nothing is shown.

use super::text::{Kind, Text};
use std::fs::{read_dir, read_to_string};

/// `sysconf(_SC_CLK_TCK)`: fixed at 100 in Linux' user interface (`man 5 proc`, `USER_HZ`).
const TICKS: f64 = 100.0;
const KIB: u64 = 1024;

/// Writes what can be read, in order; `None`: something could not be.
pub fn write(out: &mut Text) -> Option<()> {
    let stat = read_to_string("/proc/self/stat").ok()?;
    // After the name in brackets, which may hold anything: state is field 3.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let field = |n: usize| fields.get(n - 3)?.parse::<f64>().ok();
    out.family("process_cpu_seconds_total", Kind::Counter, "User and system CPU time spent in seconds.");
    out.line("", &[], (field(14)? + field(15)?) / TICKS);
    let status = read_to_string("/proc/self/status").ok()?;
    let of =
        |key: &str| status.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':')?.split_whitespace().next()?.parse::<u64>().ok());
    out.family("process_resident_memory_bytes", Kind::Gauge, "Resident memory size in bytes.");
    out.line("", &[], of("VmRSS")? * KIB);
    out.family("process_virtual_memory_bytes", Kind::Gauge, "Virtual memory size in bytes.");
    out.line("", &[], of("VmSize")? * KIB);
    out.family("process_threads", Kind::Gauge, "Number of OS threads in the process.");
    out.line("", &[], of("Threads")?);
    out.family("process_open_fds", Kind::Gauge, "Number of open file descriptors.");
    out.line("", &[], read_dir("/proc/self/fd").ok()?.count());
    let limits = read_to_string("/proc/self/limits").ok()?;
    let max = limits.lines().find_map(|l| l.strip_prefix("Max open files")?.split_whitespace().next()?.parse::<u64>().ok());
    if let Some(max) = max {
        out.family("process_max_fds", Kind::Gauge, "Maximum number of open file descriptors.");
        out.line("", &[], max);
    }
    let boot = read_to_string("/proc/stat").ok()?.lines().find_map(|l| l.strip_prefix("btime ")?.parse::<f64>().ok())?;
    out.family("process_start_time_seconds", Kind::Gauge, "Start time of the process since unix epoch in seconds.");
    out.line("", &[], boot + field(22)? / TICKS);
    Some(())
}
