use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn a_streamed_text_is_the_text_that_was_said(pieces in prop::collection::vec(".{0,12}", 0..40)) {
        let mut scene = Scene::new(Delivery::Streamed);
        scene.step(RelayEvent::Released);
        let mut read = Vec::new();
        for (ix, piece) in pieces.iter().enumerate() {
            scene.says(piece);
            if ix % 3 == 0 {
                read.extend(scene.events());
            }
        }
        scene.complete();
        scene.finish();
        read.extend(scene.events());
        prop_assert_eq!(said(&read), pieces.concat());
        let bytes: usize = pieces.iter().map(String::len).sum();
        prop_assert_eq!(scene.relay.counts().text_bytes, bytes as u64);
    }

    #[test]
    fn arbitrary_sealed_text_never_panics_and_never_breaks_the_framing(text in any::<String>()) {
        for api in [Api::Chat, Api::Completions] {
            let mut scene = Scene::of(api, Delivery::Streamed);
            scene.step(RelayEvent::Released);
            scene.says("a");
            scene.chunk(FIRST, &text);
            scene.chunk(FIRST, &format!("data: {text}"));
            scene.step(RelayEvent::Denied { denial: Denial::ProviderFailed });
            prop_assert!(scene.events().len() >= 2);
        }
    }

    #[test]
    fn two_relays_with_the_same_past_have_the_same_digest(pieces in prop::collection::vec(".{0,6}", 0..9)) {
        let run = || {
            let mut scene = Scene::new(Delivery::Streamed);
            for piece in &pieces {
                scene.says(piece);
            }
            scene.relay.digest()
        };
        prop_assert_eq!(run(), run());
    }
}
