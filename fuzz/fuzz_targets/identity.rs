//! What people and machines hand one another about identities: certificates, revocations, notices,
//! cards and links. Nothing panics, and nothing is accepted that its signer did not sign.
#![no_main]

use libfuzzer_sys::fuzz_target;
use x0x_core::{AgentId, WallTime};
use x0x_identity::{
    AcceptedCertificate, CardKind, Link, MAX_ACCEPTED_CERTIFICATE, MAX_LINK, MAX_NOTICE,
    MAX_SIGNED_CARD, MAX_SIGNED_CERTIFICATE, MAX_SIGNED_REVOCATION, Notice, NoticeIn, SignedCard,
    SignedCertificate, SignedRevocation,
};

const NOW: WallTime = WallTime::from_millis(1_800_000_000_000);

fuzz_target!(|data: &[u8]| {
    let Some((kind, rest)) = data.split_first() else { return };
    match kind % 7 {
        0 => {
            let Ok(certificate) = SignedCertificate::decode(rest) else { return };
            assert!(rest.len() <= MAX_SIGNED_CERTIFICATE);
            let agent = certificate.claimed().agent;
            if let Ok(verified) = certificate.verify(agent, NOW) {
                assert_eq!(verified.user_key.user_id(), verified.certificate.user);
            }
        }
        1 => {
            let Ok(accepted) = AcceptedCertificate::decode(rest) else { return };
            assert!(rest.len() <= MAX_ACCEPTED_CERTIFICATE);
            let _ = accepted.verify();
        }
        2 => {
            let Ok(revocation) = SignedRevocation::decode(rest) else { return };
            assert!(rest.len() <= MAX_SIGNED_REVOCATION);
            let subject = revocation.claimed_subject();
            if let Ok(verified) = revocation.verify() {
                assert_eq!(verified.revocation().subject, subject);
            }
        }
        3 => {
            let Ok(notice) = Notice::decode(rest) else { return };
            assert!(rest.len() <= MAX_NOTICE);
            match notice {
                NoticeIn::Agent(standing) => drop(standing.verify(AgentId::new([7; 32]), NOW)),
                NoticeIn::Revocation(revocation) => drop(revocation.verify()),
                _ => {}
            }
        }
        4 => card(CardKind::Agent, rest),
        5 => card(CardKind::Introduction, rest),
        _ => {
            let Ok(text) = std::str::from_utf8(rest) else { return };
            match Link::parse(text) {
                Ok(Link::Short(short)) => {
                    assert!(text.trim_ascii().len() <= MAX_LINK);
                    let again = Link::parse(&short.to_text());
                    assert!(matches!(again, Ok(Link::Short(read)) if read == short));
                }
                Ok(Link::Card(card)) => drop(card.verify(NOW)),
                _ => {}
            }
        }
    }
});

fn card(kind: CardKind, bytes: &[u8]) {
    let Ok(card) = SignedCard::decode(kind, bytes) else { return };
    assert!(bytes.len() <= MAX_SIGNED_CARD);
    let agent = card.claimed_agent();
    if let Ok(verified) = card.verify(NOW) {
        assert_eq!(verified.card.agent, agent);
    }
}
