//! The event engine against queueing theory: mean waits within 1 % of the closed forms.
//!
//! Seeds are fixed, so these are no statistical tests that may fail by chance.

use std::collections::VecDeque;

use cereus_core::time::Tick;
use cereus_sim::queue::EventQueue;
use cereus_sim::stream::Stream;

/// One in a million of a second is far below 1 % of this mean.
const SERVICE_US: u64 = 1_000_000;

#[derive(Clone, Copy)]
enum Service {
    Constant,
    Exponential,
}

#[derive(Clone, Copy)]
enum Happening {
    Arrival,
    Departure,
}

/// Mean wait in microseconds of `customers` in a queue with `servers` and this mean gap.
fn mean_wait_us(service: Service, servers: u32, gap_us: u64, customers: u64) -> u64 {
    let mut arrivals = Stream::new(2, "arrivals");
    let mut services = Stream::new(2, "services");
    let mut queue = EventQueue::new();
    let mut waiting: VecDeque<Tick> = VecDeque::new();
    let (mut busy, mut served, mut arrived) = (0, 0u64, 0u64);
    let mut waited_us = 0u128;
    queue.push(Tick(0), Happening::Arrival);
    while let Some((now, happening)) = queue.pop() {
        match happening {
            Happening::Arrival => {
                waiting.push_back(now);
                arrived += 1;
                if arrived < customers {
                    let next = Tick(now.0 + arrivals.exponential(gap_us));
                    queue.push(next, Happening::Arrival);
                }
            }
            Happening::Departure => busy -= 1,
        }
        while busy < servers && !waiting.is_empty() {
            let since = waiting.pop_front().expect("not empty");
            waited_us += u128::from(now.since(since).0);
            served += 1;
            busy += 1;
            let took_us = match service {
                Service::Constant => SERVICE_US,
                Service::Exponential => services.exponential(SERVICE_US),
            };
            queue.push(Tick(now.0 + took_us), Happening::Departure);
        }
    }
    assert_eq!(served, customers);
    u64::try_from(waited_us / u128::from(customers)).expect("a mean of u64")
}

fn assert_within_a_percent(measured_us: u64, expected_us: u64) {
    let error = measured_us.abs_diff(expected_us);
    assert!(
        error * 100 <= expected_us,
        "{measured_us} instead of {expected_us}"
    );
}

#[test]
fn m_m_1_waits_as_erlang_says() {
    // W = rho / (mu - lambda); rho = 1/2 gives one service time.
    let wait_us = mean_wait_us(Service::Exponential, 1, 2 * SERVICE_US, 2_000_000);
    assert_within_a_percent(wait_us, SERVICE_US);
}

#[test]
fn m_m_k_waits_as_erlang_c_says() {
    // Four servers offered 3 erlangs: C = 27/53, W = C / (4 mu - lambda) = 27/53 of a service time.
    let wait_us = mean_wait_us(Service::Exponential, 4, SERVICE_US / 3, 4_000_000);
    assert_within_a_percent(wait_us, SERVICE_US * 27 / 53);
}

#[test]
fn m_d_1_waits_as_pollaczek_and_khinchine_say() {
    // W = rho / (2 mu (1 - rho)); rho = 1/2 gives half a service time.
    let wait_us = mean_wait_us(Service::Constant, 1, 2 * SERVICE_US, 2_000_000);
    assert_within_a_percent(wait_us, SERVICE_US / 2);
}
