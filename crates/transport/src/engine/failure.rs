//! Why a handshake failed, from what quinn reports.

use quinn::{ConnectError, ConnectionError, TransportErrorCode};
use rustls::{AlertDescription, Error, PeerIncompatible};

use crate::{error::DialError, wire::CloseCode};

/// The first of the 256 QUIC error codes that carry a TLS alert (RFC 9001, section 4.8).
const CRYPTO_ERROR: u64 = 0x100;

/// A reason to count a failed handshake under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HandshakeFailure {
    NoCommonGroup,
    CertificateType,
    KeyType,
    WrongPeer,
    OwnKey,
    Signature,
    NoCommonSignature,
    NoKey,
    Protocol,
    RefusedByPeer,
    Timeout,
    Other,
}

impl HandshakeFailure {
    pub(super) fn of(error: &ConnectionError) -> Self {
        match error {
            ConnectionError::TransportError(found) => Self::found_here(found.code, &found.reason),
            ConnectionError::ConnectionClosed(_) | ConnectionError::ApplicationClosed(_) => {
                Self::RefusedByPeer
            }
            ConnectionError::TimedOut => Self::Timeout,
            ConnectionError::VersionMismatch => Self::Protocol,
            _ => Self::Other,
        }
    }

    /// Classifies an error that this end found. Our verifier picks a distinct alert for each of
    /// its refusals (see `tls`). rustls sends one alert for every incompatibility, so those are
    /// told apart by the text, which is compared with what rustls itself makes of each of them.
    fn found_here(code: TransportErrorCode, reason: &str) -> Self {
        let is = |cause: PeerIncompatible| Error::from(cause).to_string() == reason;
        match alert(code) {
            Some(AlertDescription::AccessDenied) => Self::WrongPeer,
            Some(AlertDescription::CertificateUnknown) => Self::OwnKey,
            Some(AlertDescription::BadCertificate) => Self::KeyType,
            Some(AlertDescription::DecryptError) => Self::Signature,
            Some(AlertDescription::CertificateRequired) => Self::NoKey,
            Some(AlertDescription::NoApplicationProtocol) => Self::Protocol,
            _ if is(PeerIncompatible::NoKxGroupsInCommon) => Self::NoCommonGroup,
            _ if is(PeerIncompatible::IncorrectCertificateTypeExtension) => Self::CertificateType,
            _ if is(PeerIncompatible::NoSignatureSchemesInCommon) => Self::NoCommonSignature,
            _ => Self::Other,
        }
    }

    /// What a dialler is told.
    pub(super) fn dial_error(self, error: &ConnectionError) -> DialError {
        match self {
            Self::NoCommonGroup => DialError::PeerMisbehaved("no common key exchange"),
            Self::CertificateType => DialError::PeerMisbehaved("no raw public key"),
            Self::KeyType => DialError::PeerMisbehaved("its key is not ML-DSA-65"),
            Self::WrongPeer => DialError::PeerMisbehaved("proved another identity"),
            Self::OwnKey => DialError::OwnAddress,
            Self::Signature => DialError::PeerMisbehaved("could not sign with its key"),
            Self::NoCommonSignature => DialError::PeerMisbehaved("no common signature scheme"),
            Self::NoKey => DialError::PeerMisbehaved("presented no key"),
            Self::Protocol => DialError::PeerMisbehaved("another protocol version"),
            Self::Timeout => DialError::Timeout,
            Self::RefusedByPeer => DialError::ClosedByPeer(closed_text(error)),
            Self::Other if *error == ConnectionError::LocallyClosed => DialError::Closed,
            Self::Other => DialError::PeerMisbehaved("broke the handshake"),
        }
    }
}

/// A dial that could not even start.
pub(super) fn not_started(error: &ConnectError) -> DialError {
    match error {
        ConnectError::InvalidRemoteAddress(_) => DialError::NoAddress,
        ConnectError::CidsExhausted => DialError::Limit { what: "connection ids", max: usize::MAX },
        _ => DialError::Closed,
    }
}

/// The peer's reason in our words: its own text is not repeated, as anything may stand there.
pub(super) fn closed_text(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            CloseCode::from_wire(close.error_code.into_inner()).to_string()
        }
        ConnectionError::ConnectionClosed(close) => match alert(close.error_code) {
            Some(alert) => format!("TLS alert {alert:?}"),
            None => close.error_code.to_string(),
        },
        other => other.to_string(),
    }
}

/// The TLS alert in a QUIC error code.
pub(super) fn alert(code: TransportErrorCode) -> Option<AlertDescription> {
    let alert = u8::try_from(u64::from(code).checked_sub(CRYPTO_ERROR)?).ok()?;
    Some(AlertDescription::from(alert))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(alert: AlertDescription, reason: &str) -> HandshakeFailure {
        HandshakeFailure::found_here(TransportErrorCode::crypto(alert.into()), reason)
    }

    #[test]
    fn alerts_and_reasons_tell_failures_apart() {
        let text = |cause: PeerIncompatible| Error::from(cause).to_string();
        let incompatible = AlertDescription::HandshakeFailure;
        for (alert, reason, expected) in [
            (
                incompatible,
                text(PeerIncompatible::NoKxGroupsInCommon),
                HandshakeFailure::NoCommonGroup,
            ),
            (
                incompatible,
                text(PeerIncompatible::IncorrectCertificateTypeExtension),
                HandshakeFailure::CertificateType,
            ),
            (
                incompatible,
                text(PeerIncompatible::NoSignatureSchemesInCommon),
                HandshakeFailure::NoCommonSignature,
            ),
            (incompatible, String::new(), HandshakeFailure::Other),
            (AlertDescription::AccessDenied, String::new(), HandshakeFailure::WrongPeer),
            (AlertDescription::CertificateUnknown, String::new(), HandshakeFailure::OwnKey),
        ] {
            assert_eq!(found(alert, &reason), expected, "{alert:?} {reason}");
        }
        let plain = HandshakeFailure::found_here(TransportErrorCode::PROTOCOL_VIOLATION, "");
        assert_eq!(plain, HandshakeFailure::Other);
        assert_eq!(HandshakeFailure::of(&ConnectionError::TimedOut), HandshakeFailure::Timeout);
    }

    #[test]
    fn only_the_crypto_range_holds_alerts() {
        assert_eq!(alert(TransportErrorCode::CONNECTION_REFUSED), None);
        assert_eq!(alert(TransportErrorCode::crypto(49)), Some(AlertDescription::AccessDenied));
    }

    #[test]
    fn a_dial_that_was_cut_by_our_own_close_is_not_the_peers_fault() {
        let error = ConnectionError::LocallyClosed;
        assert_eq!(HandshakeFailure::of(&error).dial_error(&error), DialError::Closed);
        assert_eq!(not_started(&ConnectError::EndpointStopping), DialError::Closed);
    }
}
