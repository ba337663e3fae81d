//! A browser's session: a cookie that holds a token, so that a page can make calls in its holder's name and never sees it.
//!
//! Nothing is kept here. The session ends with the token, with the browser, or when the page says so.

use axum::{
    body::Body,
    extract::{ConnectInfo, State},
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use fleetknock_proto::status as refuse;
use fleetknock_runtime::tls::Peer;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Web, answer, api, origin};
use crate::trust::Caller;

/// A browser takes a cookie of such a name from this very host only, in TLS only (RFC 6265bis, section 4.1.3.2).
const COOKIE: &str = "__Host-fleetknock";
/// Not for scripts, not with requests that other sites make.
const ATTRIBUTES: &str = "Path=/; Secure; HttpOnly; SameSite=Strict";

/// What a session begins with.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Begin {
    token: String,
}

/// Who asks.
#[derive(Serialize)]
struct Who {
    /// Such as `user alice`, or `anybody` in plain text.
    who: String,
    /// Empty in plain text, where everybody may do everything.
    role: String,
    /// How it showed that: `certificate`, `token` and its id, or `nothing`.
    by: String,
}

impl Who {
    fn answer(caller: &Caller) -> Response {
        let actor = caller.actor();
        let role = actor.role.map(|role| role.to_string()).unwrap_or_default();
        let who = Self { who: actor.who, role, by: actor.by };
        // Text can always be written.
        answer::json(serde_json::to_string(&who).unwrap_or_default()).into_response()
    }
}

/// `GET /api/v1/session`: who asks.
pub(super) async fn who(
    State(web): State<Web>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    headers: HeaderMap,
) -> Response {
    let asking = async {
        origin::check(&headers)?;
        let shown = api::shown(&peer, &headers);
        let nothing =
            peer.is_private && peer.certificate.is_none() && !shown.contains_key(header::AUTHORIZATION);
        if nothing {
            // A page that was just opened guesses nothing: it is not counted as a failure.
            return Err(refuse::unknown_caller(
                "nothing is shown: begin a session with a token, or show a certificate",
            ));
        }
        web.api()?.gate.who(shown, peer).await
    };
    asking.await.map_or_else(|status| answer::refused(&status), |caller| Who::answer(&caller))
}

/// `POST /api/v1/session`: gives the browser a cookie with the token, when it is good.
pub(super) async fn begin(
    State(web): State<Web>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let beginning = async {
        origin::check_change(&headers)?;
        if !peer.is_private {
            let reason = "there are no tokens in plain text: anybody on the way could read them";
            return Err(refuse::precondition("session", "", reason));
        }
        let read = api::read(body).await?;
        // The reader's own words may repeat what it read.
        let begin: Begin = serde_json::from_slice(&read)
            .map_err(|_| refuse::invalid("token", "write it like {\"token\": \"fkt_...\"}"))?;
        let token = Zeroizing::new(begin.token);
        let malformed = |_| refuse::invalid("token", "this is no token");
        let bearer = HeaderValue::try_from(format!("Bearer {}", *token)).map_err(malformed)?;
        let shown = HeaderMap::from_iter([(header::AUTHORIZATION, bearer)]);
        let caller = web.api()?.gate.who(shown, peer).await?;
        let cookie =
            HeaderValue::try_from(format!("{COOKIE}={}; {ATTRIBUTES}", *token)).map_err(malformed)?;
        Ok((caller, cookie))
    };
    match beginning.await {
        Ok((caller, cookie)) => ([(header::SET_COOKIE, cookie)], Who::answer(&caller)).into_response(),
        Err(status) => answer::refused(&status),
    }
}

/// `DELETE /api/v1/session`: takes the cookie back. The token is good as before: revoke it to end it.
pub(super) async fn end(headers: HeaderMap) -> Response {
    let none = format!("{COOKIE}=; {ATTRIBUTES}; Max-Age=0");
    match origin::check_change(&headers) {
        Ok(()) => ([(header::SET_COOKIE, none)], answer::json("{}")).into_response(),
        Err(status) => answer::refused(&status),
    }
}

/// The tokens of the session's cookies, as a call shows them; one, unless somebody meddled.
pub(super) fn cookies(headers: &HeaderMap) -> Vec<HeaderValue> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = all.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let tokens = pairs.filter(|(name, _)| *name == COOKIE).map(|(_, token)| token);
    tokens.filter_map(|token| HeaderValue::try_from(format!("Bearer {token}")).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_found_among_other_cookies() {
        let headers =
            |text: &str| HeaderMap::from_iter([(header::COOKIE, HeaderValue::try_from(text).unwrap())]);
        assert_eq!(cookies(&headers("a=b; __Host-fleetknock=fkt_1; c=d")), ["Bearer fkt_1"]);
        assert_eq!(cookies(&headers("fleetknock=fkt_1; __Host-fleetknock2=x")), [""; 0]);
        assert_eq!(cookies(&headers("__Host-fleetknock=a;__Host-fleetknock=b")).len(), 2);
        assert_eq!(cookies(&HeaderMap::new()), [""; 0]);
    }
}
