use proptest::prelude::*;

use super::*;
use crate::draw::Seed;
use crate::wire::proof::Posture;

fn config() -> LinkConfig {
    LinkConfig::reference(Seed::from_number(1), 0, Posture::Advisory)
}

const NOW: Tick = Tick(1_000_000);

#[test]
fn control_overtakes_data_but_never_interrupts_it() {
    let (config, mut outbox) = (config(), Outbox::default());
    outbox.push(Lane::Data, vec![1], None, &config).unwrap();
    outbox.push(Lane::Data, vec![2], None, &config).unwrap();
    assert_eq!(outbox.depart(NOW, &config).unwrap().frame, [1]);
    outbox.push(Lane::Control, vec![3], None, &config).unwrap();
    outbox.push(Lane::Control, vec![4], None, &config).unwrap();
    assert_eq!(outbox.depart(NOW, &config), None, "one write at a time");
    let mut order = vec![];
    while outbox.arrived() {
        order.extend(
            outbox
                .depart(NOW, &config)
                .map(|departure| departure.frame[0]),
        );
    }
    assert_eq!(order, [3, 4, 2]);
}

#[test]
fn a_full_lane_refuses_at_once_and_leaves_the_other_alone() {
    let (config, mut outbox) = (config(), Outbox::default());
    for lane in [Lane::Control, Lane::Data] {
        let count = match lane {
            Lane::Control => 64,
            Lane::Data => 128,
        };
        for _ in 0..count {
            outbox.push(lane, vec![0], None, &config).unwrap();
        }
        assert_eq!(outbox.push(lane, vec![0], None, &config), Err(LaneFull));
    }
    outbox.invariant();
}

#[test]
fn queued_bytes_are_bounded_whatever_the_count() {
    let config = LinkConfig {
        queued_bytes_max: 10,
        ..config()
    };
    let mut outbox = Outbox::default();
    outbox
        .push(Lane::Data, vec![0; 6], Some(WireId(1)), &config)
        .unwrap();
    assert_eq!(
        outbox.push(Lane::Control, vec![0; 5], None, &config),
        Err(LaneFull)
    );
    outbox
        .push(Lane::Control, vec![0; 4], None, &config)
        .unwrap();
    assert!(outbox.withdraw(WireId(1)));
    assert!(!outbox.withdraw(WireId(1)));
    outbox.push(Lane::Data, vec![0; 6], None, &config).unwrap();
    outbox.invariant();
}

#[test]
fn the_deadline_follows_the_size_within_its_bounds() {
    let config = config();
    let mib = 1024 * 1024;
    let table = [
        (0, 5_000_000),
        (2 * mib, 5_000_000),
        (20 * mib, 10_000_000),
        (32 * mib, 16_000_000),
        (200 * mib, 30_000_000),
    ];
    for (size, us) in table {
        assert_eq!(data_write_span(size, &config), Span(us), "{size} bytes");
    }
    let mut outbox = Outbox::default();
    outbox.push(Lane::Control, vec![0], None, &config).unwrap();
    assert_eq!(
        outbox.depart(NOW, &config).unwrap().deadline,
        NOW + Span::secs(5)
    );
}

proptest! {
    #[test]
    fn nothing_is_lost_doubled_or_reordered_within_a_lane(
        ops in prop::collection::vec(0u8..4, 0..200),
    ) {
        let (config, mut outbox) = (config(), Outbox::default());
        let (mut sent, mut left, mut count) = ([vec![], vec![]], [vec![], vec![]], 0u8);
        let mut note = |departure: Option<Departure>| {
            if let Some(departure) = departure {
                left[usize::from(departure.frame[0])].push(departure.frame[1]);
            }
        };
        for op in ops {
            match op {
                0 | 1 => {
                    let lane = if op == 0 { Lane::Control } else { Lane::Data };
                    let is_taken = outbox.push(lane, vec![op, count], None, &config).is_ok();
                    if is_taken {
                        sent[usize::from(op)].push(count);
                    }
                    count = count.wrapping_add(1);
                }
                2 => note(outbox.depart(NOW, &config)),
                _ => { outbox.arrived(); }
            }
            outbox.invariant();
        }
        loop {
            outbox.arrived();
            let Some(departure) = outbox.depart(NOW, &config) else { break };
            note(Some(departure));
        }
        prop_assert_eq!(sent, left);
    }
}
