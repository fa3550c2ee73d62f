use proptest::prelude::*;

use super::*;

#[test]
fn every_wake_reason_can_fire() {
    for reason in AgentWake::ALL {
        let script = match reason {
            AgentWake::ClockDue => "",
            AgentWake::RestOverdue => "request 1; after 1; clock tue 06:00:00",
            AgentWake::DialDue => "",
            AgentWake::DialOverdue => "wake",
            AgentWake::HeartbeatDue => "wake; connect",
            AgentWake::PingDue => "wake; connect; after 5001",
            AgentWake::DrainOverdue => "wake; connect; request 1; drain",
            AgentWake::LeaveOverdue => "wake; connect; request 1; after 1; close 1001 drain:deploy",
        };
        let mut play = match reason {
            AgentWake::ClockDue => hours::at_night(),
            AgentWake::RestOverdue => hours::joined_at_night(),
            AgentWake::DialDue
            | AgentWake::DialOverdue
            | AgentWake::DrainOverdue
            | AgentWake::HeartbeatDue
            | AgentWake::LeaveOverdue
            | AgentWake::PingDue => Play::new(),
        };
        if !script.is_empty() {
            play.run(script);
        }
        let mut fired = false;
        for _ in 0..64 {
            let Some((_, due)) = play.agent.next_wake() else {
                break;
            };
            let told = play.run("due");
            if due == reason {
                assert!(!told.is_empty(), "{reason:?} woke for nothing");
                fired = true;
                break;
            }
            play.run("pong");
        }
        assert!(fired, "{reason:?} never fired");
    }
}

fn anything() -> impl Strategy<Value = String> {
    let job = 1..6u8;
    prop_oneof![
        Just("due".to_owned()),
        Just("wake".to_owned()),
        Just("connect".to_owned()),
        Just("challenge".to_owned()),
        Just("signed".to_owned()),
        Just("measured".to_owned()),
        Just("pong".to_owned()),
        Just("closed".to_owned()),
        Just("clock tue 05:00:00".to_owned()),
        Just("clock tue 06:00:00".to_owned()),
        Just("dialfail".to_owned()),
        Just("close 1001 drain:deploy".to_owned()),
        (0..40_000u32).prop_map(|ms| format!("after {ms}")),
        job.clone().prop_map(|job| format!("bare {job}")),
        job.clone().prop_map(|job| format!("cancel {job}")),
        job.clone().prop_map(|job| format!("said {job} x")),
        job.clone().prop_map(|job| format!("done {job} 3")),
        job.clone().prop_map(|job| format!("stopped {job} 3")),
        job.prop_map(|job| format!("request {job}")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn each_job_gets_at_most_one_terminal_and_no_chunk_after_it(
        script in prop::collection::vec(anything(), 0..60),
        is_at_night in any::<bool>(),
    ) {
        let mut play = if is_at_night {
            hours::joined_at_night()
        } else {
            Play::joined()
        };
        let mut ended = std::collections::BTreeSet::new();
        for command in &script {
            let told = play.run(command);
            for line in told.split("; ") {
                let mut words = line.split(' ');
                let (verb, job) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
                match verb {
                    "chunk" => prop_assert!(!ended.contains(job), "{line} after its end"),
                    "complete" | "error" => {
                        prop_assert!(ended.insert(job.to_owned()), "{line} twice");
                    }
                    _ => {}
                }
            }
            prop_assert!(play.agent.live_jobs() <= 2);
        }
    }

    #[test]
    fn two_agents_with_the_same_past_have_the_same_digest(
        script in prop::collection::vec(anything(), 0..20),
    ) {
        let run = || {
            let mut play = Play::joined();
            for command in &script {
                play.run(command);
            }
            play.agent.digest()
        };
        prop_assert_eq!(run(), run());
    }

    #[test]
    fn arbitrary_frames_never_panic(frame in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut play = Play::joined();
        play.frame(&frame);
    }
}
