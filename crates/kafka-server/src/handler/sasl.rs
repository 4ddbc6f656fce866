//! SaslHandshake and SaslAuthenticate: PLAIN, checked by the host.
//!
//! Holds: a user name and a password are never logged.

use super::Call;
use crate::error_code::ErrorCode;
use crate::host::{Host, Principal};
use crate::message::{
    SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};
use crate::wire::Text;

const PLAIN: &str = "PLAIN";

/// How far a connection's login is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Sasl {
    #[default]
    NotAsked,
    /// The mechanism is agreed on; SaslAuthenticate comes next.
    Agreed,
    /// As `Agreed`, but the token comes as a bare frame, as after SaslHandshake 0.
    AgreedBare,
    Done,
    /// The connection ends once this is answered.
    Refused,
}

impl Call<'_> {
    pub(super) fn sasl_handshake(
        &mut self,
        request: &SaslHandshakeRequest,
    ) -> SaslHandshakeResponse {
        let mut response = SaslHandshakeResponse {
            error: ErrorCode::None,
            mechanisms: vec![Text::from(PLAIN)],
        };
        if request.mechanism.as_str() != PLAIN {
            response.error = ErrorCode::UnsupportedSaslMechanism;
        } else if self.header.version == 0 {
            self.client.sasl = Sasl::AgreedBare;
        } else {
            self.client.sasl = Sasl::Agreed;
        }
        response
    }

    pub(super) fn sasl_authenticate(
        &mut self,
        request: &SaslAuthenticateRequest,
    ) -> SaslAuthenticateResponse {
        if let Some(principal) = authenticate_token(self.shared.host.as_ref(), &request.auth_bytes)
        {
            self.client.principal = principal;
            self.client.sasl = Sasl::Done;
            return SaslAuthenticateResponse::default();
        }
        self.client.sasl = Sasl::Refused;
        SaslAuthenticateResponse {
            error: ErrorCode::SaslAuthenticationFailed,
            error_message: Some(Text::from("user name or password is wrong")),
            ..SaslAuthenticateResponse::default()
        }
    }
}

/// Checks a PLAIN token: `[authzid] NUL authcid NUL passwd` (RFC 4616).
pub(crate) fn authenticate_token(host: &dyn Host, token: &[u8]) -> Option<Principal> {
    let mut parts = token.splitn(3, |byte| *byte == 0);
    let (_authorization, user, password) = (parts.next()?, parts.next()?, parts.next()?);
    host.authenticate(std::str::from_utf8(user).ok()?, password)
}
