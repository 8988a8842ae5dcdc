//! Links survive pasting, or say that they did not.

use std::time::Duration;

use proptest::prelude::*;
use x0x_core::WallTime;

use super::*;
use crate::{
    Card,
    testing::{kem_key, key},
};

const NOW: WallTime = WallTime::from_millis(1_800_000_000_000);

fn short(addresses: &[&str]) -> AgentLink {
    AgentLink {
        agent: key(1).public_key().agent_id(),
        machine: key(100).public_key().machine_id(),
        addresses: addresses.iter().map(|text| text.parse().expect("an address")).collect(),
    }
}

fn parse_short(text: &str) -> Result<AgentLink, LinkError> {
    match Link::parse(text)? {
        Link::Short(link) => Ok(link),
        Link::Card(_) => panic!("not a short link"),
    }
}

#[test]
fn short_links_are_short_and_read_back() {
    let v6 = "[2001:db8::1]:5483";
    for (link, longest) in [
        (short(&[]), 120),
        (short(&["192.0.2.1:5483", "198.51.100.7:40000"]), 160),
        (short(&[v6, v6, v6, v6]), 260),
    ] {
        let text = link.to_text();
        assert!(text.len() <= longest, "{} {text}", text.len());
        assert_eq!(parse_short(&text), Ok(link.clone()));
        assert_eq!(parse_short(&format!("  {text}\n")), Ok(link.clone()));
        assert_eq!(parse_short(&text[LINK_PREFIX.len()..]), Ok(link));
    }
    assert_eq!(parse_short(&short(&[v6; 6]).to_text()).map(|link| link.addresses.len()), Ok(4));
}

#[test]
fn cards_travel_in_links() {
    let card = Card {
        agent: key(1).public_key().agent_id(),
        machine: key(100).public_key().machine_id(),
        display_name: "Ada".to_owned(),
        addresses: Vec::new(),
        kem_key: None,
        certificate: None,
        services: Vec::new(),
        issued_at: NOW,
        expires_at: NOW + Duration::from_secs(60),
    };
    let with_key = Card { kem_key: Some(kem_key(1).public_key().clone()), ..card.clone() };
    let machine = SignedCard::of_machine(&key(100), card.clone()).expect("short texts");
    let sizes = [
        (SignedCard::of_agent(&key(1), card).expect("short texts"), 7_300),
        (machine, 7_300),
        (SignedCard::of_agent(&key(1), with_key).expect("short texts"), 8_900),
    ];
    for (issued, longest) in sizes {
        let text = issued.to_link();
        assert!(text.len() <= longest, "{}", text.len());
        let Ok(Link::Card(read)) = Link::parse(&text) else { panic!("not a card") };
        assert_eq!(read.kind(), issued.kind());
        assert_eq!(&read.verify(NOW).expect("holds").card, issued.card());
    }
}

#[test]
fn what_is_no_link_is_refused() {
    let good = short(&["192.0.2.1:5483"]).to_text();
    let refused = |text: &str| Link::parse(text).map(|_| ());
    assert_eq!(refused(""), Err(LinkError::Text));
    assert_eq!(refused(LINK_PREFIX), Err(LinkError::Text));
    assert_eq!(refused("https://example.org/"), Err(LinkError::Text));
    assert_eq!(refused(&format!("{good}=")), Err(LinkError::Text));
    assert_eq!(refused(&"A".repeat(MAX_LINK + 1)), Err(LinkError::TooLong { max: MAX_LINK }));
    for length in LINK_PREFIX.len()..good.len() {
        assert!(refused(&good[..length]).is_err(), "cut at {length}");
    }
    let both = text(&LinkContent {
        card: Some(Bytes::new()),
        introduction: Some(Bytes::new()),
        short: None,
    });
    assert_eq!(refused(&both), Err(DecodeError::Field("link").into()));
}

/// The text of version 1, fixed by `docs/protocol/identity.md`.
#[test]
fn golden_vector() {
    let text = include_str!("../../tests/vectors/link-1.txt");
    let link = short(&["192.0.2.1:5483", "[2001:db8::1]:5483"]);
    assert_eq!(text.trim_end(), link.to_text());
    assert_eq!(parse_short(text), Ok(link));
}

proptest! {
    #[test]
    fn a_changed_letter_shows(position in any::<prop::sample::Index>(), letter in "[A-Za-z0-9_-]") {
        let link = short(&["192.0.2.1:5483"]);
        let mut text = link.to_text();
        let at = LINK_PREFIX.len() + position.index(text.len() - LINK_PREFIX.len());
        text.replace_range(at..=at, &letter);
        if let Ok(read) = parse_short(&text) {
            prop_assert_eq!(read, link);
        }
    }

    #[test]
    fn any_text_is_handled(text in ".{0,200}") {
        let _ = Link::parse(&text);
    }
}
