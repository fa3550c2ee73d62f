use super::*;
use crate::draw::Seed;
use crate::time::Span;
use crate::wire::Text;
use crate::wire::proof::MachineKey;

const SEALING: &str = "eaYx7t4b+cmPEgMs3q3Q56B5OY/HhriMyEbsia+FpRo=";

fn config() -> LinkConfig {
    LinkConfig::reference(Seed::from_number(1), 1_782_864_000, Posture::Required)
}

fn asked() -> Outstanding {
    let mut challenges = Challenges::new(Tick::ZERO);
    challenges
        .begin(Tick::ZERO + Span::millis(1_999), ConnId(7), &config())
        .clone()
}

fn machine() -> MachineKey {
    MachineKey::from_bytes([7; 32]).unwrap()
}

/// A faultless answer, with both signatures, after `spoil` changed what is reported.
fn answer(spoil: impl FnOnce(&mut AttestationResponse<'static>)) -> AttestationResponse<'static> {
    let asked = asked();
    let mut answer = AttestationResponse {
        nonce: Text::from(asked.nonce.clone()),
        signature: Text::from(machine().sign_challenge(&asked.nonce, &asked.timestamp)),
        public_key: Text::from(SEALING),
        sip_enabled: Some(true),
        rdma_disabled: Some(false),
        secure_boot_enabled: Some(true),
        ..AttestationResponse::default()
    };
    spoil(&mut answer);
    if answer.status_signature.is_empty() {
        let mut status = String::new();
        write_status(&asked.nonce, &asked.timestamp, &answer, &mut status);
        answer.status_signature = Text::from(machine().sign(status.as_bytes()));
    }
    answer
}

fn judged(answer: &AttestationResponse<'_>, posture: Posture) -> Verdict {
    judge(
        answer,
        &asked(),
        SEALING,
        Some(&machine().attested()),
        posture,
    )
}

#[test]
fn the_challenge_carries_32_bytes_and_the_second_it_was_made() {
    let asked = asked();
    assert_eq!(asked.timestamp, "2026-07-01T00:00:01Z");
    assert_eq!(
        crate::envelope::decode_base64_array::<32>(&asked.nonce).map(|_| ()),
        Ok(())
    );
    let mut challenges = Challenges::new(Tick::ZERO);
    let first = challenges
        .begin(Tick::ZERO, ConnId(7), &config())
        .nonce
        .clone();
    let second = challenges
        .begin(Tick::ZERO, ConnId(7), &config())
        .nonce
        .clone();
    assert_ne!(first, second);
    let other = nonce(ConnId(8), 1, &config());
    assert_ne!(first, other);
}

#[test]
fn a_nonce_is_used_once_and_only_the_right_one() {
    let mut challenges = Challenges::new(Tick::ZERO);
    let nonce = challenges
        .begin(Tick::ZERO, ConnId(7), &config())
        .nonce
        .clone();
    assert_eq!(challenges.take("other"), None);
    assert!(challenges.take(&nonce).is_some());
    assert_eq!(challenges.take(&nonce), None);
    assert_eq!(challenges.overdue_at(), None);
}

#[test]
fn each_rule_of_the_verdict_has_its_effect() {
    use Verdict::{Condemned, Failed, Passed};
    let stranger = MachineKey::from_bytes([8; 32]).unwrap();
    let moment = asked().timestamp;
    let table: Vec<(&str, AttestationResponse<'static>, Verdict)> = vec![
        ("faultless", answer(|_| {}), Passed),
        (
            "other key",
            answer(|a| a.public_key = Text::from("x")),
            Failed,
        ),
        (
            "no signature",
            answer(|a| a.signature = Text::default()),
            Failed,
        ),
        (
            "a stranger's signature",
            answer(|a| a.signature = Text::from(stranger.sign_challenge(&a.nonce, &moment))),
            Failed,
        ),
        (
            "wrong status",
            answer(|a| a.status_signature = Text::from(stranger.sign(b"x"))),
            Failed,
        ),
        ("SIP unsaid", answer(|a| a.sip_enabled = None), Failed),
        (
            "SIP off",
            answer(|a| a.sip_enabled = Some(false)),
            Condemned,
        ),
        (
            "secure boot unsaid",
            answer(|a| a.secure_boot_enabled = None),
            Passed,
        ),
        (
            "secure boot off",
            answer(|a| a.secure_boot_enabled = Some(false)),
            Condemned,
        ),
        ("RDMA unsaid", answer(|a| a.rdma_disabled = None), Failed),
        ("RDMA on", answer(|a| a.rdma_disabled = Some(false)), Passed),
        (
            "an old claim",
            answer(|a| a.hypervisor_active = Some(false)),
            Passed,
        ),
    ];
    for (name, answer, expected) in table {
        assert_eq!(judged(&answer, Posture::Required), expected, "{name}");
    }
}

#[test]
fn a_claim_that_was_stripped_or_changed_breaks_the_status() {
    let mut stripped = answer(|a| a.hypervisor_active = Some(true));
    stripped.hypervisor_active = None;
    assert_eq!(judged(&stripped, Posture::Required), Verdict::Failed);
    let mut changed = answer(|_| {});
    changed.rdma_disabled = Some(true);
    assert_eq!(judged(&changed, Posture::Required), Verdict::Failed);
    let mut unsigned = answer(|_| {});
    unsigned.status_signature = Text::default();
    assert_eq!(
        judged(&unsigned, Posture::Required),
        Verdict::Passed,
        "advisory in the baseline"
    );
}

#[test]
fn a_development_fleet_asks_for_signatures_only_where_there_is_a_key() {
    let weak = answer(|a| {
        a.sip_enabled = None;
        a.secure_boot_enabled = Some(false);
        a.rdma_disabled = None;
    });
    assert_eq!(judged(&weak, Posture::Advisory), Verdict::Passed);
    let unsigned = answer(|a| a.signature = Text::default());
    assert_eq!(judged(&unsigned, Posture::Advisory), Verdict::Failed);
    let keyless = |posture| judge(&unsigned, &asked(), SEALING, None, posture);
    assert_eq!(keyless(Posture::Advisory), Verdict::Passed);
    assert_eq!(keyless(Posture::Required), Verdict::Failed);
}

#[test]
fn failures_in_a_row_lead_where_they_should() {
    use Outcome::{Distrusted, GivenUp, Nothing, Unverified, Verified};
    #[derive(Clone, Copy)]
    enum Round {
        Bad,
        Good,
        Silent,
    }
    use Round::{Bad, Good, Silent};
    let table: [(&[Round], &[Outcome]); 6] = [
        (
            &[Silent, Silent, Silent, Silent, Silent, Silent],
            &[Nothing, Nothing, Unverified, Nothing, Nothing, GivenUp],
        ),
        (
            &[Silent, Silent, Good, Silent, Silent],
            &[Nothing, Nothing, Verified, Nothing, Nothing],
        ),
        (&[Bad, Bad, Bad], &[Unverified, Unverified, Distrusted]),
        (
            &[Bad, Good, Bad, Bad],
            &[Unverified, Verified, Unverified, Unverified],
        ),
        (&[Bad, Silent, Silent], &[Unverified, Nothing, Distrusted]),
        (
            &[Silent, Silent, Silent, Good],
            &[Nothing, Nothing, Unverified, Verified],
        ),
    ];
    for (rounds, expected) in table {
        let mut challenges = Challenges::new(Tick::ZERO);
        assert_eq!(challenges.judged(Verdict::Passed, &config()), Verified);
        let outcomes: Vec<Outcome> = rounds
            .iter()
            .map(|round| match round {
                Bad => challenges.judged(Verdict::Failed, &config()),
                Good => challenges.judged(Verdict::Passed, &config()),
                Silent => challenges.timed_out(&config()),
            })
            .collect();
        assert_eq!(outcomes, expected);
    }
    let mut challenges = Challenges::new(Tick::ZERO);
    assert_eq!(challenges.judged(Verdict::Condemned, &config()), Distrusted);
}

#[test]
fn who_never_passed_is_given_up_at_the_first_silence_or_wrong_answer() {
    let mut silent = Challenges::new(Tick::ZERO);
    assert_eq!(silent.timed_out(&config()), Outcome::GivenUp);
    let mut wrong = Challenges::new(Tick::ZERO);
    assert_eq!(wrong.judged(Verdict::Failed, &config()), Outcome::GivenUp);
    let mut condemned = Challenges::new(Tick::ZERO);
    assert_eq!(
        condemned.judged(Verdict::Condemned, &config()),
        Outcome::Distrusted
    );
}
