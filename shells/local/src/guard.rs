//! Who may speak to the server: whoever has its key.

use axum::http::StatusCode;
use axum::http::header::HeaderMap;
use cereus_core::api::Envelope;
use cereus_http::{complaint, shown_key};
use secrecy::{ExposeSecret as _, SecretString};
use subtle::ConstantTimeEq as _;

/// Open without a key: they tell nothing of any request.
const OPEN_PATHS: [&str; 2] = ["/health", "/v1/health"];

#[derive(Debug)]
pub(crate) struct Guard {
    key: Option<SecretString>,
}

impl Guard {
    pub(crate) const fn new(key: Option<SecretString>) -> Self {
        Self { key }
    }

    /// # Errors
    /// 401 without the key.
    pub(crate) fn admit(&self, path: &str, headers: &HeaderMap) -> Result<(), Envelope> {
        let Some(key) = &self.key else {
            return Ok(());
        };
        let is_same = |said: &str| said.as_bytes().ct_eq(key.expose_secret().as_bytes()).into();
        if OPEN_PATHS.contains(&path) || shown_key(headers).is_some_and(is_same) {
            return Ok(());
        }
        let text = "this server wants its key, as in `Authorization: Bearer KEY`";
        Err(Envelope {
            kind: "authentication_error",
            ..complaint(StatusCode::UNAUTHORIZED, "invalid_api_key", text)
        })
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use axum::http::header::AUTHORIZATION;

    use super::*;

    #[test]
    fn a_key_is_asked_of_all_but_a_look_at_the_health() {
        let guard = Guard::new(Some(SecretString::from("sesame")));
        let status = |path: &str, said: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, HeaderValue::from_str(said).unwrap());
            guard
                .admit(path, &headers)
                .map_or_else(|it| it.status, |()| 200)
        };
        assert_eq!(status("/v1/models", "Bearer sesame"), 200);
        for said in ["Bearer sesam", "Bearer sesame2", "Bearer ", "sesame"] {
            assert_eq!(status("/v1/models", said), 401, "{said}");
        }
        assert!(guard.admit("/health", &HeaderMap::new()).is_ok());
        assert!(guard.admit("/metrics", &HeaderMap::new()).is_err());
        assert!(
            Guard::new(None)
                .admit("/metrics", &HeaderMap::new())
                .is_ok()
        );
    }
}
