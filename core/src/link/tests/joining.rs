//! What a registration makes of a socket.

use super::*;

#[test]
fn an_attested_machine_keeps_its_identity_and_hears_of_its_trust() {
    let sealing = provider_key().public().text();
    let blob = Blob {
        public_key: Text::from(machine_key().attested().text()),
        encryption_public_key: Some(Text::from(sealing.as_str())),
        timestamp: Text::from("2026-07-01T00:00:00Z"),
        ..Blob::default()
    };
    let signed = machine_key().sign_blob(&blob);
    let sent = register_with(|register| {
        // The borrow of the frame's own life is what a provider has too.
        register.auth_token = Text::from("tok-8");
    });
    let text = String::from_utf8(sent).unwrap();
    let text = text.replacen("{", &format!(r#"{{"attestation":{},"#, signed.get()), 1);
    let mut world = World::new();
    world.frame(text.as_bytes());
    assert_eq!(
        world.log,
        "tell joined owner 8 SelfSigned seal true models [0]\nwrite trust_status\n\
         write attestation_challenge\nwrite desired_models\n"
    );
    assert_eq!(
        world.link.machine(),
        Some(machine_key().attested().machine_id())
    );
    world.took_log();
    world.answer(|_| {});
    assert_eq!(world.took_log(), "tell verified\n");
    beats_until(&mut world, 300);
    world.took_log();
    world.answer(|answer| answer.signature = Text::default());
    assert_eq!(world.took_log(), "tell unverified\nwrite trust_status\n");
    beats_until(&mut world, 600);
    world.took_log();
    world.answer(|_| {});
    assert_eq!(world.took_log(), "tell verified\nwrite trust_status\n");
}

#[test]
fn a_machine_whose_first_answer_is_wrong_is_let_go() {
    let mut world = World::new();
    world.frame(&plain_register());
    world.took_log();
    world.answer(|answer| answer.public_key = Text::from("another"));
    assert_eq!(
        world.took_log(),
        "tell left Violation\nclose 1008 the first challenge failed\n"
    );
}

#[test]
fn a_key_that_nobody_holds_is_refused_rather_than_earning_for_nobody() {
    let mut world = World::new();
    world.frame(&register_with(|register| {
        register.auth_token = Text::from("tok-9");
    }));
    assert_eq!(world.took_log(), format!("close 1008 {EARN_KEY_UNKNOWN}\n"));

    let mut world = World::new();
    world.frame(&register_with(|register| {
        register.auth_token = Text::from("tok-8");
    }));
    assert!(world.took_log().starts_with("tell joined owner 8 "));
    let linked = world.written.iter().any(|frame| {
        matches!(ToProvider::decode(frame), Ok(ToProvider::TrustStatus(status))
            if status.account_linked)
    });
    assert!(linked, "the provider hears who earns");
}

/// Reasons of the words of trust that were written.
fn reasons(world: &World) -> Vec<String> {
    let frames = world.written.iter();
    let reasons = frames.filter_map(|frame| match ToProvider::decode(frame) {
        Ok(ToProvider::TrustStatus(status)) => Some(status.reason.as_str().to_owned()),
        _ => None,
    });
    reasons.collect()
}

#[test]
fn a_machine_that_serves_nothing_of_what_is_sold_is_told_so() {
    let names = ["tiny", "other\u{1b}[31m", MODEL];
    let entry = |name: &&'static str| ModelEntry {
        id: Text::from(*name),
        ..ModelEntry::default()
    };
    let mut world = World::new();
    world.frame(&register_with(|register| {
        register.models = names[..2].iter().map(entry).collect();
    }));
    assert!(world.took_log().contains("models []"));
    assert_eq!(reasons(&world), [NOTHING_SOLD]);
    assert_eq!(world.link.unsold(), ["tiny", "other[31m"]);

    world.frame(&encoded(&ModelsUpdate {
        models: names.iter().map(entry).collect(),
    }));
    assert_eq!(reasons(&world), [NOTHING_SOLD], "one of them is sold");
    world.frame(&encoded(&ModelsUpdate {
        models: (0..40).map(|_| entry(&"tiny")).collect(),
    }));
    assert_eq!(reasons(&world), [NOTHING_SOLD; 2]);
    assert_eq!(world.link.unsold().len(), 8, "a log line is short");
}

#[test]
fn a_machine_serves_what_is_sold_later_without_saying_again_what_it_has() {
    let entry = |name: &&'static str| ModelEntry {
        id: Text::from(*name),
        ..ModelEntry::default()
    };
    let mut world = World::new();
    world.frame(&register_with(|register| {
        register.models = [&"later", &MODEL, &"never"].map(entry).into();
        register.models.push(ModelEntry {
            template_render_ok: Some(false),
            ..entry(&"broken")
        });
    }));
    world.answer(|_| {});
    assert!(world.took_log().contains("models [0]"));
    let spec = |id: &str| ModelSpec {
        id: id.to_owned(),
        ..rules().catalog.spec(ModelIx(0)).unwrap().clone()
    };

    world.step(LinkEvent::CatalogChanged);
    assert_eq!(world.took_log(), "", "nothing has changed for this machine");
    let later = world.rules.catalog.list(spec("later")).unwrap();
    world.rules.catalog.list(spec("broken")).unwrap();
    world.step(LinkEvent::CatalogChanged);
    assert_eq!(world.took_log(), "tell restocked 2\n");
    assert_eq!(world.link.unsold(), ["never"]);

    world.rules.catalog.retire(ModelIx(0));
    world.step(LinkEvent::CatalogChanged);
    assert_eq!(world.took_log(), "tell restocked 1\n");
    assert_eq!(reasons(&world), [""; 0]);
    world.rules.catalog.retire(later);
    world.step(LinkEvent::CatalogChanged);
    assert_eq!(world.took_log(), "tell restocked 0\nwrite trust_status\n");
    assert_eq!(reasons(&world), [NOTHING_SOLD]);
    assert_eq!(world.link.unsold(), ["later", MODEL, "never"]);
    world.rules.catalog.list(spec(MODEL)).unwrap();
    world.step(LinkEvent::CatalogChanged);
    assert_eq!(world.took_log(), "tell restocked 1\n");

    let mut stranger = World::new();
    stranger.step(LinkEvent::CatalogChanged);
    assert_eq!(stranger.took_log(), "", "nobody has said what is there");
}

#[test]
fn what_a_machine_has_beyond_what_is_noted_is_counted() {
    let entry = |id: String| ModelEntry {
        id: Text::from(id),
        ..ModelEntry::default()
    };
    let long = entry("x".repeat(257));
    let many = (0..70).map(|number| entry(format!("other-{number}")));
    let mut world = World::new();
    world.frame(&register_with(|register| {
        register.models = many.chain([long, entry(MODEL.to_owned())]).collect();
    }));
    assert!(world.took_log().contains("models [0]"), "what is sold is");
    assert_eq!(world.link.counts().models_unnoted, 6 + 1);
}

#[test]
fn a_machine_that_stays_where_its_identity_is_contested_is_told_so() {
    let mut world = World::joined();
    world.step(LinkEvent::IdentityContested);
    assert_eq!(reasons(&world), [IDENTITY_CONTESTED]);
    assert!(!world.link.is_closed());
}

#[test]
fn a_machine_that_was_lost_at_work_again_and_again_is_told_so() {
    let mut world = World::joined();
    world.step(LinkEvent::LossesSeen);
    assert_eq!(reasons(&world), [LOST_AT_WORK]);
    assert!(!world.link.is_closed());
}

#[test]
fn the_identity_without_an_attestation_is_the_sealing_key_then_the_connection() {
    let machine = |change: fn(&mut Register<'_>), conn| {
        let rules = rules();
        let mut link = ProviderLink::new(Tick::ZERO, conn, OWNER, &rules.config);
        let frame = register_with(change);
        let out = &mut LinkOut::default();
        link.step(Tick::ZERO, LinkEvent::FrameReceived(&frame), &rules, out)
            .unwrap();
        (link.machine().unwrap(), link.sealing_key().is_some())
    };
    let (by_key, can_seal) = machine(|_| {}, ConnId(1));
    assert!(can_seal);
    assert_eq!(machine(|_| {}, ConnId(2)), (by_key, true));
    let zero = |register: &mut Register<'_>| {
        register.public_key = Text::from("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    };
    let (by_conn, can_seal) = machine(zero, ConnId(1));
    assert!(!can_seal, "a low-order key is no key");
    assert_ne!(machine(zero, ConnId(2)).0, by_conn);
}
