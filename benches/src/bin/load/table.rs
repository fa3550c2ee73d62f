//! The numbers as Markdown.

use crate::drive::Round;
use crate::system::machine;

pub(crate) fn print(concurrent: u16, pieces: u32, rounds: &[(&str, Round)]) {
    println!(
        "{concurrent} streams at once, {pieces} pieces each ({}):\n",
        machine()
    );
    println!(
        "| | requests/s | events/s | TTFT p50 | TTFT p99 | CPU per event, front | behind | \
         RSS, front | behind |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|");
    for (name, round) in rounds {
        let per_event = |us: u64| us as f64 / round.events.max(1) as f64;
        let mib = |kib: u64| kib as f64 / 1_024.0;
        println!(
            "| {name} | {:.0} | {:.0} | {:.1} ms | {:.1} ms | {:.1} us | {:.1} us | {:.0} MiB | \
             {:.0} MiB |",
            round.requests_per_s(),
            round.events_per_s(),
            round.first_ms(50),
            round.first_ms(99),
            per_event(round.front_cpu_us),
            per_event(round.behind_cpu_us),
            mib(round.front_kib),
            mib(round.behind_kib),
        );
    }
    let Some(((_, own), floors)) = rounds.split_first() else {
        return;
    };
    println!();
    for (name, floor) in floors {
        println!(
            "- against {name}: {:.2} of its events a second, {:.2} times its time to first event",
            own.events_per_s() / floor.events_per_s(),
            own.first_ms(50) / floor.first_ms(50).max(0.001),
        );
    }
}
