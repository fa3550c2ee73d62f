//! The control plane at four fleet sizes: a decision, a whole request, a heartbeat.

use cereus_benches::fleet::Fleet;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const SIZES: [u32; 4] = [100, 1_000, 10_000, 100_000];

fn coordinator(c: &mut Criterion) {
    for (name, run) in [
        ("decision", decide as fn(&mut Fleet, u32)),
        ("lifecycle", |fleet, _| fleet.lifecycle()),
        ("heartbeat", |fleet, turn| fleet.heartbeat(turn)),
    ] {
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Elements(1));
        for size in SIZES {
            let mut fleet = Fleet::of(size);
            let mut turn = 0u32;
            group.bench_function(BenchmarkId::from_parameter(size), |b| {
                b.iter(|| {
                    turn = (turn.wrapping_mul(1_103_515_245).wrapping_add(12_345)) % size;
                    run(&mut fleet, turn);
                });
            });
        }
    }
}

fn decide(fleet: &mut Fleet, _: u32) {
    assert!(fleet.decide().is_some());
}

criterion_group!(benches, coordinator);
criterion_main!(benches);
