//! The data plane, frame by frame: what a coordinator spends on each piece of an answer.
//!
//! A chunk holds 200 bytes of sealed text, as a provider writes it for a word or two.

use cereus_benches::stream::{self, Stream};
use cereus_core::wire::ToCoordinator;
use cereus_core::wire::scan::scan_type;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

fn per_chunk(c: &mut Criterion) {
    let mut group = c.benchmark_group("chunk");
    group.throughput(Throughput::Elements(1));
    let frames = stream::frames();

    group.bench_function("seal", |b| {
        let mut sealer = stream::Sealer::new();
        b.iter(|| sealer.seal().len());
    });
    group.bench_function("scan", |b| {
        let mut turn = 0;
        b.iter(|| {
            turn = (turn + 1) % frames.len();
            scan_type(&frames[turn]).is_some()
        });
    });
    group.bench_function("decode", |b| {
        let mut turn = 0;
        b.iter(|| {
            turn = (turn + 1) % frames.len();
            ToCoordinator::decode(&frames[turn]).is_ok()
        });
    });
    group.bench_function("link", |b| {
        let mut stream = Stream::new();
        b.iter(|| stream.link_next());
    });
    group.bench_function("relay", |b| {
        let mut stream = Stream::new();
        b.iter(|| stream.relay_next());
    });
    group.bench_function("link_and_relay", |b| {
        let mut stream = Stream::new();
        b.iter(|| stream.next());
    });
}

fn per_heartbeat(c: &mut Criterion) {
    let mut group = c.benchmark_group("heartbeat");
    group.throughput(Throughput::Elements(1));
    let frame = stream::heartbeat();
    group.bench_function("decode", |b| {
        b.iter(|| ToCoordinator::decode(&frame).is_ok());
    });
    group.bench_function("link", |b| {
        b.iter_batched_ref(
            Stream::new,
            |stream| stream.hear(&frame),
            BatchSize::NumIterations(1_000),
        );
    });
}

criterion_group!(benches, per_chunk, per_heartbeat);
criterion_main!(benches);
