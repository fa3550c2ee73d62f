//! What a row says is its own affair: company, pieces, memory and what others left behind change when
//! it is said and never what.

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use super::super::*;
use super::laws::{Harness, Op, Seen, configs, op};
use crate::kv::tests::layouts;
use crate::kv::tests::recount::recount;

/// A row to submit, and the steps since the one before.
#[derive(Clone, Copy, Debug)]
struct Work {
    gap_steps: u32,
    op: Op,
}

fn work() -> impl Strategy<Value = Work> {
    let tenant = prop_oneof![Just(None), Just(Some(1u8)), Just(Some(2))];
    // Whole blocks of 32, asked again, are found whole.
    let prompt = prop_oneof![1u32..150, (1u32..4).prop_map(|blocks| blocks * 32)];
    let output = (1u32..60, 1u32..60);
    (0u32..30, prompt, output, 0u8..3, tenant, 0u32..200).prop_map(
        |(gap_steps, prompt_tokens, (output_tokens_max, stop_after), priority, tenant, common)| {
            let op = Op::Submit {
                prompt_tokens,
                output_tokens_max,
                stop_after,
                priority,
                tenant,
                common,
            };
            Work { gap_steps, op }
        },
    )
}

/// Serves the rows in this order; their ids are their places in `work`.
fn serve(scheduler: Scheduler, work: &[Work], order: &[usize]) -> Harness {
    let mut harness = Harness::new(scheduler);
    for &ix in order {
        harness.apply(Op::Steps(work[ix].gap_steps));
        while harness.scheduler.capacity().waiting >= harness.scheduler.config().waiting_max {
            harness.apply(Op::Steps(1));
        }
        harness.submitted = ix as u64;
        harness.apply(work[ix].op);
    }
    harness.submitted = work.len() as u64;
    harness.finish();
    harness
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    /// ENG-04 and ENG-07, for tensors that are a hash of what was read: the order of arrival, the
    /// batch, the pieces, preemptions, the layout of pages and what was found change no answer.
    #[test]
    fn a_row_says_the_same_whatever_runs_beside_it(
        configs in (configs(), configs()),
        layouts in (layouts(), layouts()),
        work in prop::collection::vec(work(), 1..14),
        order in any::<prop::sample::Index>(),
    ) {
        let one = Scheduler::new(configs.0, layouts.0);
        let other = Scheduler::new(configs.1, layouts.1);
        let (Ok(one), Ok(other)) = (one, other) else {
            return Ok(());
        };
        let forth: Vec<usize> = (0..work.len()).collect();
        let mut turned: Vec<usize> = forth.iter().rev().copied().collect();
        turned.rotate_left(order.index(work.len()));
        let one = serve(one, &work, &forth).said;
        let other = serve(other, &work, &turned).said;
        for (row, said) in &one {
            prop_assert!(other.get(row).is_none_or(|other| other == said));
        }
    }
}

/// The random schedules of these tests are no use unless they come by what may go wrong.
#[test]
fn random_schedules_come_by_every_kind_of_trouble() {
    let mut runner = TestRunner::deterministic();
    let mut draw = || {
        let ops = prop::collection::vec(op(), 1..50);
        let tree = (configs(), layouts(), ops).new_tree(&mut runner);
        tree.expect("nothing is filtered").current()
    };
    let mut total = Seen::default();
    for _ in 0..400 {
        let (config, layout, ops) = draw();
        let Ok(scheduler) = Scheduler::new(config, layout) else {
            continue;
        };
        let mut harness = Harness::new(scheduler);
        ops.into_iter().for_each(|op| harness.apply(op));
        let seen = harness.seen;
        total.adopted += seen.adopted;
        total.cancelled += seen.cancelled;
        total.copied += seen.copied;
        total.forgotten += seen.forgotten;
        total.paused += seen.paused;
        total.preempted += seen.preempted;
        total.restored += seen.restored;
        total.withdrawn += seen.withdrawn;
    }
    let Seen {
        adopted,
        cancelled,
        copied,
        forgotten,
        paused,
        preempted,
        restored,
        withdrawn,
    } = total;
    let counts = [
        adopted, cancelled, copied, forgotten, paused, preempted, restored, withdrawn,
    ];
    assert!(counts.iter().all(|&count| count >= 10), "{total:?}");
}

#[test]
fn a_cancel_at_any_boundary_gives_everything_back() {
    for boundary in 0..12 {
        for is_planned in [false, true] {
            cancelled_at(boundary, is_planned);
        }
    }
}

/// ENG-09: of two rows one is cancelled after so many steps, before or after the next is planned.
fn cancelled_at(boundary: u32, is_planned: bool) {
    let hashes = [1, 2, 3, 4, 5].map(|byte| BlockHash([byte; 32]));
    let mut scheduler = super::scheduler();
    scheduler.submit(super::ask(1, 90, 9), &hashes).unwrap();
    scheduler.submit(super::ask(2, 40, 30), &[]).unwrap();
    for _ in 0..boundary {
        super::step(&mut scheduler);
    }
    let mut plan = StepPlan::default();
    if is_planned {
        scheduler.plan(&mut plan);
    }
    scheduler.cancel(RowId(1));
    scheduler.commit(&plan, &[], &mut Vec::new());
    let others = if scheduler.capacity().running == 0 {
        0
    } else {
        scheduler.kv().bytes(70)
    };
    assert_eq!(scheduler.kv().reserved_bytes(), others);
    recount(scheduler.kv());
    let before = scheduler.clone();
    assert_eq!(scheduler.cancel(RowId(1)), Cancelled::Unknown);
    assert_eq!(scheduler, before);
    while !scheduler.is_idle() {
        super::step(&mut scheduler);
    }
    assert_eq!(scheduler.kv().reserved_bytes(), 0);
    scheduler.resize(0, &mut Vec::new());
    assert_eq!(scheduler.kv().used_bytes(), 0);
}
